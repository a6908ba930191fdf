package scsi

import "fmt"

// The sense keys (SPC-4 §4.5.6).
const (
	KeyNoSense        uint8 = 0x0
	KeyRecoveredError uint8 = 0x1
	KeyNotReady       uint8 = 0x2
	KeyMediumError    uint8 = 0x3
	KeyHardwareError  uint8 = 0x4
	KeyIllegalRequest uint8 = 0x5
	KeyUnitAttention  uint8 = 0x6
	KeyDataProtect    uint8 = 0x7
	KeyBlankCheck     uint8 = 0x8
	KeyCopyAborted    uint8 = 0xA
	KeyAbortedCommand uint8 = 0xB
	KeyMiscompare     uint8 = 0xE
	KeyCompleted      uint8 = 0xF
)

// The additional sense codes, ASC in the high and ASCQ in the low byte (SPC-4
// §E.2, SBC-3).
const (
	NoAdditionalSense               uint16 = 0x0000
	OperationInProgress             uint16 = 0x0016
	BecomingReady                   uint16 = 0x0401
	InitializingCommandRequired     uint16 = 0x0402
	NotReadyManualIntervention      uint16 = 0x0403
	AsymmetricAccessTransition      uint16 = 0x040A
	TargetPortStandby               uint16 = 0x040B
	TargetPortUnavailable           uint16 = 0x040C
	NotReadyOffline                 uint16 = 0x0412
	SanitizeInProgress              uint16 = 0x041B
	PowerTransition                 uint16 = 0x041A
	WarningSpecifiedTemperature     uint16 = 0x0B01
	WriteError                      uint16 = 0x0C02
	ThirdPartyDeviceFailure         uint16 = 0x0D01
	CopyTargetNotReachable          uint16 = 0x0D02
	IncorrectCopyTargetType         uint16 = 0x0D03
	CopyTargetDataUnderrun          uint16 = 0x0D04
	CopyTargetDataOverrun           uint16 = 0x0D05
	InvalidInformationUnit          uint16 = 0x0E00
	UnrecoveredReadError            uint16 = 0x1100
	SanitizeFailed                  uint16 = 0x3103
	ParameterListLengthError        uint16 = 0x1A00
	MiscompareDuringVerify          uint16 = 0x1D00
	InvalidOperationCode            uint16 = 0x2000
	LBAOutOfRange                   uint16 = 0x2100
	InvalidTokenOperation           uint16 = 0x2300
	UnsupportedTokenType            uint16 = 0x2301
	TokenUnknown                    uint16 = 0x2304
	TokenCorrupt                    uint16 = 0x2305
	TokenRevoked                    uint16 = 0x2306
	TokenExpired                    uint16 = 0x2307
	TokenCancelled                  uint16 = 0x2308
	TokenDeleted                    uint16 = 0x2309
	InvalidTokenLength              uint16 = 0x230A
	InvalidFieldInCDB               uint16 = 0x2400
	LogicalUnitNotSupported         uint16 = 0x2500
	InvalidFieldInParameterList     uint16 = 0x2600
	ParameterNotSupported           uint16 = 0x2601
	ParameterValueInvalid           uint16 = 0x2602
	InvalidReleaseOfReservation     uint16 = 0x2604
	TooManyTargetDescriptors        uint16 = 0x2606
	UnsupportedTargetDescriptor     uint16 = 0x2607
	TooManySegmentDescriptors       uint16 = 0x2608
	UnsupportedSegmentDescriptor    uint16 = 0x2609
	InlineDataLengthExceeded        uint16 = 0x260B
	WriteProtected                  uint16 = 0x2700
	HardwareWriteProtected          uint16 = 0x2701
	SoftwareWriteProtected          uint16 = 0x2702
	SpaceAllocationFailed           uint16 = 0x2707
	PowerOnReset                    uint16 = 0x2900
	PowerOnOccurred                 uint16 = 0x2901
	BusResetOccurred                uint16 = 0x2902
	BusDeviceResetOccurred          uint16 = 0x2903
	DeviceInternalReset             uint16 = 0x2904
	NexusLossOccurred               uint16 = 0x2907
	ModeParametersChanged           uint16 = 0x2A01
	LogParametersChanged            uint16 = 0x2A02
	ReservationsPreempted           uint16 = 0x2A03
	ReservationsReleased            uint16 = 0x2A04
	RegistrationsPreempted          uint16 = 0x2A05
	AsymmetricAccessChanged         uint16 = 0x2A06
	CapacityChanged                 uint16 = 0x2A09
	CommandSequenceError            uint16 = 0x2C00
	CommandsClearedByOther          uint16 = 0x2F00
	SavingParametersNotSupported    uint16 = 0x3900
	ThinProvisioningSoftThreshold   uint16 = 0x3807
	MediumNotPresent                uint16 = 0x3A00
	TargetOperatingConditionsChange uint16 = 0x3F00
	InquiryDataChanged              uint16 = 0x3F03
	ReportedLUNsChanged             uint16 = 0x3F0E
	InternalTargetFailure           uint16 = 0x4400
	InvalidMessage                  uint16 = 0x4900
	CommandPhaseError               uint16 = 0x4A00
	DataPhaseError                  uint16 = 0x4B00
	OverlappedCommands              uint16 = 0x4E00
	MediumRemovalPrevented          uint16 = 0x5302
	InsufficientResources           uint16 = 0x5503
	InsufficientRegistrations       uint16 = 0x5504
	SetTargetPortGroupsFailed       uint16 = 0x670A
)

var ascNames = map[uint16]string{
	NoAdditionalSense:               "NO ADDITIONAL SENSE INFORMATION",
	OperationInProgress:             "OPERATION IN PROGRESS",
	BecomingReady:                   "LOGICAL UNIT IS IN PROCESS OF BECOMING READY",
	InitializingCommandRequired:     "LOGICAL UNIT NOT READY, INITIALIZING COMMAND REQUIRED",
	NotReadyManualIntervention:      "LOGICAL UNIT NOT READY, MANUAL INTERVENTION REQUIRED",
	AsymmetricAccessTransition:      "LOGICAL UNIT NOT ACCESSIBLE, ASYMMETRIC ACCESS STATE TRANSITION",
	TargetPortStandby:               "LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN STANDBY STATE",
	TargetPortUnavailable:           "LOGICAL UNIT NOT ACCESSIBLE, TARGET PORT IN UNAVAILABLE STATE",
	NotReadyOffline:                 "LOGICAL UNIT NOT READY, OFFLINE",
	SanitizeInProgress:              "LOGICAL UNIT NOT READY, SANITIZE IN PROGRESS",
	PowerTransition:                 "LOGICAL UNIT NOT READY, START STOP UNIT COMMAND IN PROGRESS",
	WarningSpecifiedTemperature:     "WARNING - SPECIFIED TEMPERATURE EXCEEDED",
	WriteError:                      "WRITE ERROR - AUTO REALLOCATION FAILED",
	ThirdPartyDeviceFailure:         "THIRD PARTY DEVICE FAILURE",
	CopyTargetNotReachable:          "COPY TARGET DEVICE NOT REACHABLE",
	IncorrectCopyTargetType:         "INCORRECT COPY TARGET DEVICE TYPE",
	CopyTargetDataUnderrun:          "COPY TARGET DEVICE DATA UNDERRUN",
	CopyTargetDataOverrun:           "COPY TARGET DEVICE DATA OVERRUN",
	InvalidInformationUnit:          "INVALID INFORMATION UNIT",
	UnrecoveredReadError:            "UNRECOVERED READ ERROR",
	SanitizeFailed:                  "SANITIZE COMMAND FAILED",
	ParameterListLengthError:        "PARAMETER LIST LENGTH ERROR",
	MiscompareDuringVerify:          "MISCOMPARE DURING VERIFY OPERATION",
	InvalidOperationCode:            "INVALID COMMAND OPERATION CODE",
	LBAOutOfRange:                   "LOGICAL BLOCK ADDRESS OUT OF RANGE",
	InvalidTokenOperation:           "INVALID TOKEN OPERATION, CAUSE NOT REPORTABLE",
	UnsupportedTokenType:            "INVALID TOKEN OPERATION, UNSUPPORTED TOKEN TYPE",
	TokenUnknown:                    "INVALID TOKEN OPERATION, TOKEN UNKNOWN",
	TokenCorrupt:                    "INVALID TOKEN OPERATION, TOKEN CORRUPT",
	TokenRevoked:                    "INVALID TOKEN OPERATION, TOKEN REVOKED",
	TokenExpired:                    "INVALID TOKEN OPERATION, TOKEN EXPIRED",
	TokenCancelled:                  "INVALID TOKEN OPERATION, TOKEN CANCELLED",
	TokenDeleted:                    "INVALID TOKEN OPERATION, TOKEN DELETED",
	InvalidTokenLength:              "INVALID TOKEN OPERATION, INVALID TOKEN LENGTH",
	InvalidFieldInCDB:               "INVALID FIELD IN CDB",
	LogicalUnitNotSupported:         "LOGICAL UNIT NOT SUPPORTED",
	InvalidFieldInParameterList:     "INVALID FIELD IN PARAMETER LIST",
	ParameterNotSupported:           "PARAMETER NOT SUPPORTED",
	ParameterValueInvalid:           "PARAMETER VALUE INVALID",
	InvalidReleaseOfReservation:     "INVALID RELEASE OF PERSISTENT RESERVATION",
	TooManyTargetDescriptors:        "TOO MANY TARGET DESCRIPTORS",
	UnsupportedTargetDescriptor:     "UNSUPPORTED TARGET DESCRIPTOR TYPE CODE",
	TooManySegmentDescriptors:       "TOO MANY SEGMENT DESCRIPTORS",
	UnsupportedSegmentDescriptor:    "UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE",
	InlineDataLengthExceeded:        "INLINE DATA LENGTH EXCEEDED",
	WriteProtected:                  "WRITE PROTECTED",
	HardwareWriteProtected:          "HARDWARE WRITE PROTECTED",
	SoftwareWriteProtected:          "LOGICAL UNIT SOFTWARE WRITE PROTECTED",
	SpaceAllocationFailed:           "SPACE ALLOCATION FAILED WRITE PROTECT",
	PowerOnReset:                    "POWER ON, RESET, OR BUS DEVICE RESET OCCURRED",
	PowerOnOccurred:                 "POWER ON OCCURRED",
	BusResetOccurred:                "SCSI BUS RESET OCCURRED",
	BusDeviceResetOccurred:          "BUS DEVICE RESET FUNCTION OCCURRED",
	DeviceInternalReset:             "DEVICE INTERNAL RESET",
	NexusLossOccurred:               "I_T NEXUS LOSS OCCURRED",
	ModeParametersChanged:           "MODE PARAMETERS CHANGED",
	LogParametersChanged:            "LOG PARAMETERS CHANGED",
	ReservationsPreempted:           "RESERVATIONS PREEMPTED",
	ReservationsReleased:            "RESERVATIONS RELEASED",
	RegistrationsPreempted:          "REGISTRATIONS PREEMPTED",
	AsymmetricAccessChanged:         "ASYMMETRIC ACCESS STATE CHANGED",
	CapacityChanged:                 "CAPACITY DATA HAS CHANGED",
	CommandSequenceError:            "COMMAND SEQUENCE ERROR",
	CommandsClearedByOther:          "COMMANDS CLEARED BY ANOTHER INITIATOR",
	SavingParametersNotSupported:    "SAVING PARAMETERS NOT SUPPORTED",
	ThinProvisioningSoftThreshold:   "THIN PROVISIONING SOFT THRESHOLD REACHED",
	MediumNotPresent:                "MEDIUM NOT PRESENT",
	TargetOperatingConditionsChange: "TARGET OPERATING CONDITIONS HAVE CHANGED",
	InquiryDataChanged:              "INQUIRY DATA HAS CHANGED",
	ReportedLUNsChanged:             "REPORTED LUNS DATA HAS CHANGED",
	InternalTargetFailure:           "INTERNAL TARGET FAILURE",
	InvalidMessage:                  "INVALID MESSAGE ERROR",
	CommandPhaseError:               "COMMAND PHASE ERROR",
	DataPhaseError:                  "DATA PHASE ERROR",
	OverlappedCommands:              "OVERLAPPED COMMANDS ATTEMPTED",
	MediumRemovalPrevented:          "MEDIUM REMOVAL PREVENTED",
	InsufficientResources:           "INSUFFICIENT RESOURCES",
	InsufficientRegistrations:       "INSUFFICIENT REGISTRATION RESOURCES",
	SetTargetPortGroupsFailed:       "SET TARGET PORT GROUPS COMMAND FAILED",
}

// CodeName returns the name of an additional sense code for people.
func CodeName(code uint16) string {
	if s, ok := ascNames[code]; ok {
		return s
	}
	return fmt.Sprintf("additional sense %02X/%02X", code>>8, code&0xFF)
}

// KeyName returns the name of a sense key for people.
func KeyName(key uint8) string {
	switch key {
	case KeyNoSense:
		return "NO SENSE"
	case KeyRecoveredError:
		return "RECOVERED ERROR"
	case KeyNotReady:
		return "NOT READY"
	case KeyMediumError:
		return "MEDIUM ERROR"
	case KeyHardwareError:
		return "HARDWARE ERROR"
	case KeyIllegalRequest:
		return "ILLEGAL REQUEST"
	case KeyUnitAttention:
		return "UNIT ATTENTION"
	case KeyDataProtect:
		return "DATA PROTECT"
	case KeyBlankCheck:
		return "BLANK CHECK"
	case KeyCopyAborted:
		return "COPY ABORTED"
	case KeyAbortedCommand:
		return "ABORTED COMMAND"
	case KeyMiscompare:
		return "MISCOMPARE"
	case KeyCompleted:
		return "COMPLETED"
	}
	return fmt.Sprintf("sense key %Xh", key)
}
