// Package hostconfig makes the settings that a Linux host needs for the volumes
// of an array: how multipath, open-iscsi and the kernel's NVMe host treat paths.
package hostconfig

import (
	"embed"
	"net/netip"
	"strings"
	"text/template"

	"lintel.io/lintel/internal/array"
)

// File is a part of a host's configuration.
type File struct {
	// Kind names it: "multipath", "iscsid", "nvme" or "nvme-discovery".
	Kind string
	// Path is where it belongs on a Debian or Red Hat host.
	Path string
	text *template.Template
}

//go:embed multipath.conf iscsid.conf nvme.rules discovery.conf
var texts embed.FS

func file(kind, path, text string) File {
	return File{kind, path, template.Must(template.ParseFS(texts, text))}
}

// The parts that there are.
var (
	Multipath     = file("multipath", "/etc/multipath/conf.d/lintel.conf", "multipath.conf")
	ISCSID        = file("iscsid", "/etc/iscsi/iscsid.conf", "iscsid.conf")
	NVMe          = file("nvme", "/etc/udev/rules.d/71-nvmf-iopolicy-lintel.rules", "nvme.rules")
	NVMeDiscovery = file("nvme-discovery", "/etc/nvme/discovery.conf", "discovery.conf")
	Files         = []File{Multipath, ISCSID, NVMe, NVMeDiscovery}
)

// TakesPortals reports whether the text depends on the array's portals.
func (f File) TakesPortals() bool { return f.Kind == NVMeDiscovery.Kind }

// Text returns the content of the file; where it names portals, these ones. A portal
// with port 0 has that of NVMe discovery.
func (f File) Text(portals ...netip.AddrPort) string {
	var b strings.Builder
	err := f.text.Execute(&b, struct {
		Path, Vendor, Product, Model string
		DiscoveryPort                uint16
		Portals                      []netip.AddrPort
	}{f.Path, array.DefaultVendor, array.DefaultProduct, array.SubsystemModel, array.DefaultDiscoveryPort, portals})
	if err != nil {
		panic(err) // the templates are this package's, and a builder takes all
	}
	return b.String()
}
