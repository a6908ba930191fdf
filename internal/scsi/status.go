package scsi

// Status is a SAM-5 §5.3.1 status code.
type Status uint8

// The status codes.
const (
	StatusGood                Status = 0x00
	StatusCheckCondition      Status = 0x02
	StatusConditionMet        Status = 0x04
	StatusBusy                Status = 0x08
	StatusReservationConflict Status = 0x18
	StatusTaskSetFull         Status = 0x28
	StatusACAActive           Status = 0x30
	StatusTaskAborted         Status = 0x40
)

// TaskAttribute is a SAM-5 §8.6 task attribute.
type TaskAttribute uint8

// The task attributes, with the codes of RFC 7143 §11.3.1.
const (
	AttrUntagged    TaskAttribute = 0
	AttrSimple      TaskAttribute = 1
	AttrOrdered     TaskAttribute = 2
	AttrHeadOfQueue TaskAttribute = 3
	AttrACA         TaskAttribute = 4
)

// Function is a SAM-5 §7 task management function.
type Function uint8

// The task management functions, with the codes of RFC 7143 §11.5.1.
const (
	AbortTask        Function = 1
	AbortTaskSet     Function = 2
	ClearACA         Function = 3
	ClearTaskSet     Function = 4
	LogicalUnitReset Function = 5
	TargetWarmReset  Function = 6
	TargetColdReset  Function = 7
	TaskReassign     Function = 8
	QueryTask        Function = 9
	QueryTaskSet     Function = 10
	ITNexusReset     Function = 11
	QueryAsyncEvent  Function = 12
)

// Response is the service response of a task management function, with the
// codes of RFC 7143 §11.6.1.
type Response uint8

// The responses.
const (
	FunctionComplete     Response = 0
	TaskDoesNotExist     Response = 1
	LUNDoesNotExist      Response = 2
	TaskStillAllegiant   Response = 3
	ReassignNotSupported Response = 4
	FunctionNotSupported Response = 5
	FunctionSucceeded    Response = 7 // QUERY TASK found it
	FunctionRejected     Response = 255
)
