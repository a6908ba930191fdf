package scsi

type modes struct{}

func (lu *LogicalUnit) loadModes() error { return nil }
func (lu *LogicalUnit) restoreModes()    {}
