package iscsi

// The text keys (RFC 7143 §12 and §13, RFC 7144).
const (
	KeyAuthMethod               = "AuthMethod"
	KeyCHAPAlgorithm            = "CHAP_A"
	KeyCHAPIdentifier           = "CHAP_I"
	KeyCHAPChallenge            = "CHAP_C"
	KeyCHAPName                 = "CHAP_N"
	KeyCHAPResponse             = "CHAP_R"
	KeyHeaderDigest             = "HeaderDigest"
	KeyDataDigest               = "DataDigest"
	KeyMaxConnections           = "MaxConnections"
	KeySendTargets              = "SendTargets"
	KeyTargetName               = "TargetName"
	KeyInitiatorName            = "InitiatorName"
	KeyTargetAlias              = "TargetAlias"
	KeyInitiatorAlias           = "InitiatorAlias"
	KeyTargetAddress            = "TargetAddress"
	KeyTargetPortalGroupTag     = "TargetPortalGroupTag"
	KeyInitialR2T               = "InitialR2T"
	KeyImmediateData            = "ImmediateData"
	KeyMaxRecvDataSegmentLength = "MaxRecvDataSegmentLength"
	KeyMaxBurstLength           = "MaxBurstLength"
	KeyFirstBurstLength         = "FirstBurstLength"
	KeyDefaultTime2Wait         = "DefaultTime2Wait"
	KeyDefaultTime2Retain       = "DefaultTime2Retain"
	KeyMaxOutstandingR2T        = "MaxOutstandingR2T"
	KeyDataPDUInOrder           = "DataPDUInOrder"
	KeyDataSequenceInOrder      = "DataSequenceInOrder"
	KeyErrorRecoveryLevel       = "ErrorRecoveryLevel"
	KeySessionType              = "SessionType"
	KeyTaskReporting            = "TaskReporting"
	KeyProtocolLevel            = "iSCSIProtocolLevel"
	KeyIFMarker                 = "IFMarker"
	KeyOFMarker                 = "OFMarker"
	KeyIFMarkInt                = "IFMarkInt"
	KeyOFMarkInt                = "OFMarkInt"
)

// Defaults of keys that an initiator need not send (RFC 7143 §13), in bytes.
const (
	DefaultMaxRecvDataSegment = 8192
	DefaultMaxBurst           = 262144
	DefaultFirstBurst         = 65536
)

// CHAP algorithms (RFC 7143 §12.1.3 and the IANA registry).
const (
	CHAPMD5     = 5
	CHAPSHA1    = 6
	CHAPSHA256  = 7
	CHAPSHA3256 = 8
)
