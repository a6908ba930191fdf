package array

import (
	"cmp"
	"slices"
)

// SubsystemModel is the model number of the NVM subsystem (NVMe Base 2.0 figure
// 275, MN): the words that SCSI hosts see as vendor and product.
const SubsystemModel = DefaultVendor + " " + DefaultProduct

// SubsystemSerial returns the serial number of the NVM subsystem (NVMe Base 2.0
// figure 275, SN): the array's id, which fits its 20 bytes.
func (d *Document) SubsystemSerial() string { return d.ID }

// DiscoveryNQN returns the unique NQN of the array's discovery subsystem, which
// answers to the well-known one too.
func (d *Document) DiscoveryNQN() string { return defaultNQN(d.ID) + ":discovery" }

func defaultNQN(arrayID string) string { return DefaultNQNBase + ":" + arrayID }

// defaultNSID returns the namespace id that goes with a LUN, 0 where there is none.
func defaultNSID(lun uint16) uint32 {
	if lun < MaxNSID {
		return uint32(lun) + 1
	}
	return 0
}

// complete returns the document with what it lacks because a program wrote it that
// knew no NVMe, or one target port group alone: the subsystem's name, the protocol and
// group of portals, and the namespace ids of mappings. What comes out depends on the document alone, so that it is the same
// at every start. doc is not changed.
func complete(doc *Document) *Document {
	old := doc.Target.SubsystemNQN == ""
	lacks := func(p *Portal) bool { return p.Protocol == "" || p.Group == 0 }
	if !old && !slices.ContainsFunc(doc.Portals, lacks) || len(doc.Target.PortGroups) == 0 {
		return doc
	}
	d := *doc
	d.Portals = slices.Clone(d.Portals)
	for i, p := range d.Portals {
		if lacks(p) {
			now := *p
			now.Protocol = cmp.Or(p.Protocol, ISCSI)
			now.Group = cmp.Or(p.Group, d.Target.PortGroups[0].ID)
			d.Portals[i] = &now
		}
	}
	if !old {
		return &d
	}
	d.Target.SubsystemNQN = defaultNQN(d.ID)
	d.Mappings = slices.Clone(d.Mappings)
	for i, m := range d.Mappings {
		if m.NSID == 0 {
			now := *m
			now.NSID = defaultNSID(m.LUN)
			d.Mappings[i] = &now
		}
	}
	return &d
}
