package nvme

// Computing holds a value for each host that the controller computes for.
var Computing = computing
