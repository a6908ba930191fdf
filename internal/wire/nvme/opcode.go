package nvme

// The operation codes of admin commands (NVMe Base 2.0 figure 138).
const (
	AdminGetLogPage   uint8 = 0x02
	AdminIdentify     uint8 = 0x06
	AdminAbort        uint8 = 0x08
	AdminSetFeatures  uint8 = 0x09
	AdminGetFeatures  uint8 = 0x0A
	AdminAsyncEvent   uint8 = 0x0C
	AdminKeepAlive    uint8 = 0x18
	AdminGetLBAStatus uint8 = 0x86
	FabricsCommand    uint8 = 0x7F // on either kind of queue
)

// The operation codes of the NVM command set (NVMe NVM 1.0 figure 20).
const (
	Flush               uint8 = 0x00
	Write               uint8 = 0x01
	Read                uint8 = 0x02
	WriteUncorrectable  uint8 = 0x04
	Compare             uint8 = 0x05
	WriteZeroes         uint8 = 0x08
	DatasetManagement   uint8 = 0x09
	Verify              uint8 = 0x0C
	ReservationRegister uint8 = 0x0D
	ReservationReport   uint8 = 0x0E
	ReservationAcquire  uint8 = 0x11
	ReservationRelease  uint8 = 0x15
	Copy                uint8 = 0x19
)

// The types of Fabrics commands (NVMe Base 2.0 figure 381).
const (
	PropertySet           uint8 = 0x00
	Connect               uint8 = 0x01
	PropertyGet           uint8 = 0x04
	AuthenticationSend    uint8 = 0x05
	AuthenticationReceive uint8 = 0x06
	Disconnect            uint8 = 0x08
)

// AllNamespaces is the NSID that stands for every namespace of a controller.
const AllNamespaces uint32 = 0xFFFFFFFF

// The NQNs of the discovery service (NVMe Base 2.0 §3.1.2.3, §4.5) and how long an NQN is at most.
const (
	DiscoveryNQN = "nqn.2014-08.org.nvmexpress.discovery"
	MaxNQN       = 223
)

// The controller properties (NVMe Base 2.0 figure 33) that exist on fabrics.
const (
	PropertyCAP  uint32 = 0x00
	PropertyVS   uint32 = 0x08
	PropertyCC   uint32 = 0x14
	PropertyCSTS uint32 = 0x1C
	PropertyNSSR uint32 = 0x20
	PropertyCRTO uint32 = 0x68
)

// Fields of CC (NVMe Base 2.0 figure 46) and CSTS (figure 47).
const (
	CCEnable          uint32 = 1 << 0
	CCShutdownMask    uint32 = 3 << 14
	CCShutdownNormal  uint32 = 1 << 14
	CCShutdownAbrupt  uint32 = 2 << 14
	CSTSReady         uint32 = 1 << 0
	CSTSFatal         uint32 = 1 << 1
	CSTSShutdownMask  uint32 = 3 << 2
	CSTSShutdownBusy  uint32 = 1 << 2
	CSTSShutdownDone  uint32 = 2 << 2
	Version20         uint32 = 0x00020000
	IOQueueEntrySizes uint32 = 6<<16 | 4<<20 // CC.IOSQES and CC.IOCQES
)

// The log page identifiers (NVMe Base 2.0 figure 202).
const (
	LogSupportedPages          uint8 = 0x00
	LogError                   uint8 = 0x01
	LogSMART                   uint8 = 0x02
	LogFirmware                uint8 = 0x03
	LogChangedNamespaces       uint8 = 0x04
	LogCommandEffects          uint8 = 0x05
	LogANA                     uint8 = 0x0C
	LogLBAStatus               uint8 = 0x0E
	LogFeatureEffects          uint8 = 0x12
	LogDiscovery               uint8 = 0x70
	LogReservationNotification uint8 = 0x80
)

// The feature identifiers (NVMe Base 2.0 figure 316).
const (
	FeatureArbitration            uint8 = 0x01
	FeaturePower                  uint8 = 0x02
	FeatureTemperature            uint8 = 0x04
	FeatureErrorRecovery          uint8 = 0x05
	FeatureWriteCache             uint8 = 0x06
	FeatureQueues                 uint8 = 0x07
	FeatureWriteAtomicity         uint8 = 0x0A
	FeatureAsyncEvents            uint8 = 0x0B
	FeatureKeepAlive              uint8 = 0x0F
	FeatureHostBehavior           uint8 = 0x16
	FeatureHostID                 uint8 = 0x81
	FeatureReservationMask        uint8 = 0x82
	FeatureReservationPersistence uint8 = 0x83
	FeatureWriteProtect           uint8 = 0x84
)

// The values of CNS of Identify (NVMe Base 2.0 figure 273).
const (
	CNSNamespace            uint8 = 0x00
	CNSController           uint8 = 0x01
	CNSActiveNamespaces     uint8 = 0x02
	CNSDescriptors          uint8 = 0x03
	CNSCommandSetNamespace  uint8 = 0x05
	CNSCommandSetController uint8 = 0x06
	CNSCommandSetActive     uint8 = 0x07
	CNSIndependentNamespace uint8 = 0x08
	CNSAllocatedNamespaces  uint8 = 0x10
	CNSAllocatedNamespace   uint8 = 0x11
	CNSNamespaceControllers uint8 = 0x12
	CNSControllers          uint8 = 0x13
	CNSCommandSetAllocated  uint8 = 0x1A
	CNSCommandSets          uint8 = 0x1C
)

// Asynchronous events (NVMe Base 2.0 §5.2.1): bits 2:0 of completion dword 0 are the type,
// 15:8 the information, 23:16 the log page to read.
const (
	EventNamespaceChanged uint32 = 0x02 | 0x00<<8 | uint32(LogChangedNamespaces)<<16
	EventANAChanged       uint32 = 0x02 | 0x03<<8 | uint32(LogANA)<<16
	EventDiscoveryChanged uint32 = 0x02 | 0xF0<<8 | uint32(LogDiscovery)<<16
	EventReservation      uint32 = 0x06 | 0x00<<8 | uint32(LogReservationNotification)<<16
)

// The bits of the Asynchronous Event Configuration feature (figure 326), which
// are those of OAES too.
const (
	NotifyNamespace uint32 = 1 << 8
	NotifyANA       uint32 = 1 << 11
	NotifyDiscovery uint32 = 1 << 31
)

// The ANA states (NVMe Base 2.0 §8.1).
const (
	ANAOptimized      uint8 = 0x1
	ANANonOptimized   uint8 = 0x2
	ANAInaccessible   uint8 = 0x3
	ANAPersistentLoss uint8 = 0x4
	ANAChange         uint8 = 0xF
)
