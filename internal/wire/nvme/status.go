package nvme

import "fmt"

// Status is the status field of a completion (NVMe Base 2.0 figure 92), bits
// 31:17 of dword 3: status code in bits 7:0, status code type in bits 10:8,
// Command Retry Delay in 12:11, More in 13 and Do Not Retry in 14. Zero is
// success.
type Status uint16

// The bits of a Status beside its code.
const (
	More       Status = 1 << 13 // there is more in the Error Information log
	DoNotRetry Status = 1 << 14 // the same command will fail again
)

// Code returns the status code type and status code, without the other bits.
func (s Status) Code() Status { return s & 0x7FF }

// OK reports whether the command succeeded.
func (s Status) OK() bool { return s.Code() == 0 }

// DNR returns the status with Do Not Retry set.
func (s Status) DNR() Status { return s | DoNotRetry }

// The status codes (NVMe Base 2.0 §3.3.3.2.1): generic ones 000h, command specific
// 100h, media and data integrity 200h, path related 300h.
const (
	Success                      Status = 0x000
	InvalidOpcode                Status = 0x001
	InvalidField                 Status = 0x002
	CommandIDConflict            Status = 0x003
	DataTransferError            Status = 0x004
	InternalError                Status = 0x006
	AbortRequested               Status = 0x007
	AbortedSQDeletion            Status = 0x008
	AbortedFailedFused           Status = 0x009
	AbortedMissingFused          Status = 0x00A
	InvalidNamespace             Status = 0x00B
	CommandSequenceError         Status = 0x00C
	InvalidSGLSegment            Status = 0x00D
	InvalidSGLCount              Status = 0x00E
	SGLLengthInvalid             Status = 0x00F
	SGLTypeInvalid               Status = 0x011
	InvalidUseOfControllerMemory Status = 0x012
	SGLOffsetInvalid             Status = 0x016
	HostIDInconsistentFormat     Status = 0x018
	KeepAliveExpired             Status = 0x019
	KeepAliveInvalid             Status = 0x01A
	AbortedPreempt               Status = 0x01B
	SanitizeFailed               Status = 0x01C
	SanitizeInProgress           Status = 0x01D
	NamespaceWriteProtected      Status = 0x020
	TransientTransport           Status = 0x022
	AdminNotReady                Status = 0x024

	LBAOutOfRange        Status = 0x080
	CapacityExceeded     Status = 0x081
	NamespaceNotReady    Status = 0x082
	ReservationConflict  Status = 0x083
	FormatInProgress     Status = 0x084
	InvalidQueueID       Status = 0x101
	InvalidQueueSize     Status = 0x102
	AbortLimitExceeded   Status = 0x103
	TooManyAsyncEvents   Status = 0x105
	InvalidFormat        Status = 0x10A
	InvalidLogPage       Status = 0x109
	FeatureNotSaveable   Status = 0x10D
	FeatureNotChangeable Status = 0x10E
	FeatureNotNamespace  Status = 0x10F
	OverlappingRange     Status = 0x114 // a value of the Base specification; not the range one of Copy
	InvalidControllerID  Status = 0x11F

	ConnectIncompatibleFormat Status = 0x180
	ConnectControllerBusy     Status = 0x181
	ConnectInvalidParameters  Status = 0x182
	ConnectRestartDiscovery   Status = 0x183
	ConnectInvalidHost        Status = 0x184
	InvalidQueueType          Status = 0x185
	DiscoverRestart           Status = 0x190
	AuthenticationRequired    Status = 0x191

	ConflictingAttributes    Status = 0x180 // NVM command set, of I/O commands
	InvalidProtection        Status = 0x181
	WriteToReadOnlyRange     Status = 0x182
	CommandSizeLimitExceeded Status = 0x183

	WriteFault         Status = 0x280
	UnrecoveredRead    Status = 0x281
	CompareFailure     Status = 0x285
	AccessDenied       Status = 0x286
	DeallocatedUnwrite Status = 0x287

	InternalPathError  Status = 0x300
	PathPersistentLoss Status = 0x301
	PathInaccessible   Status = 0x302
	PathTransition     Status = 0x303
	HostPathError      Status = 0x370
	HostAborted        Status = 0x371
)

var statusNames = map[Status]string{
	Success:                   "success",
	InvalidOpcode:             "invalid command opcode",
	InvalidField:              "invalid field in command",
	CommandIDConflict:         "command id conflict",
	DataTransferError:         "data transfer error",
	InternalError:             "internal error",
	AbortRequested:            "command abort requested",
	AbortedSQDeletion:         "command aborted due to SQ deletion",
	AbortedFailedFused:        "command aborted due to failed fused command",
	AbortedMissingFused:       "command aborted due to missing fused command",
	InvalidNamespace:          "invalid namespace or format",
	CommandSequenceError:      "command sequence error",
	SGLLengthInvalid:          "data SGL length invalid",
	SGLTypeInvalid:            "SGL descriptor type invalid",
	SGLOffsetInvalid:          "SGL offset invalid",
	HostIDInconsistentFormat:  "host identifier inconsistent format",
	KeepAliveExpired:          "keep alive timer expired",
	KeepAliveInvalid:          "keep alive timeout invalid",
	AbortedPreempt:            "command aborted due to preempt and abort",
	NamespaceWriteProtected:   "namespace is write protected",
	LBAOutOfRange:             "LBA out of range",
	CapacityExceeded:          "capacity exceeded",
	NamespaceNotReady:         "namespace not ready",
	ReservationConflict:       "reservation conflict",
	InvalidQueueID:            "invalid queue identifier",
	InvalidQueueSize:          "invalid queue size",
	AbortLimitExceeded:        "abort command limit exceeded",
	TooManyAsyncEvents:        "asynchronous event request limit exceeded",
	InvalidLogPage:            "invalid log page",
	FeatureNotSaveable:        "feature identifier not saveable",
	FeatureNotChangeable:      "feature not changeable",
	FeatureNotNamespace:       "feature not namespace specific",
	InvalidControllerID:       "invalid controller identifier",
	ConnectIncompatibleFormat: "incompatible format",
	ConnectControllerBusy:     "controller busy",
	ConnectInvalidParameters:  "connect invalid parameters",
	ConnectRestartDiscovery:   "connect restart discovery",
	ConnectInvalidHost:        "connect invalid host",
	InvalidQueueType:          "invalid queue type",
	DiscoverRestart:           "discover restart",
	AuthenticationRequired:    "authentication required",
	WriteFault:                "write fault",
	UnrecoveredRead:           "unrecovered read error",
	CompareFailure:            "compare failure",
	AccessDenied:              "access denied",
	InternalPathError:         "internal path error",
	PathPersistentLoss:        "asymmetric access persistent loss",
	PathInaccessible:          "asymmetric access inaccessible",
	PathTransition:            "asymmetric access transition",
}

func (s Status) String() string {
	name, ok := statusNames[s.Code()]
	if !ok {
		name = "status"
	}
	text := fmt.Sprintf("%s (%d/%02Xh", name, s.Code()>>8, uint8(s))
	if s&DoNotRetry != 0 {
		text += ", do not retry"
	}
	return text + ")"
}
