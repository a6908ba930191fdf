package cli

import (
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"lintel.io/lintel/internal/array"
	"lintel.io/lintel/internal/hostconfig"
	"lintel.io/lintel/internal/serve"
)

// hostConfig is host config, which needs no array.
func (a *app) hostConfig() *cobra.Command {
	var portals []string
	kinds := make([]string, len(hostconfig.Files))
	for i, f := range hostconfig.Files {
		kinds[i] = f.Kind
	}
	cmd := &cobra.Command{
		Use:   "config KIND",
		Short: "Print settings that a Linux host should have",
		Long: `Prints settings that a Linux host should have for the volumes of an array, with their
reasons. It needs no array. The first line says where the text belongs:

  multipath       stanza of multipath.conf: path groups by ALUA state
  iscsid          settings of open-iscsi: login at start, detection of lost paths
  nvme            udev rule: I/O over all paths with native NVMe multipath
  nvme-discovery  discovery.conf of nvme-cli: what nvme connect-all and its service
                  nvmf-autoconnect connect to`,
		Example: `  lintel host config multipath > /etc/multipath/conf.d/lintel.conf
  lintel host config iscsid >> /etc/iscsi/iscsid.conf
  lintel host config nvme > /etc/udev/rules.d/71-nvmf-iopolicy-lintel.rules
  lintel host config nvme-discovery --portal 192.0.2.10 --portal 198.51.100.10`,
		Args: takes("KIND"),
		RunE: func(_ *cobra.Command, args []string) error {
			for _, f := range hostconfig.Files {
				if f.Kind != args[0] {
					continue
				}
				if len(portals) > 0 && !f.TakesPortals() {
					return usage("--portal does not go with %s", f.Kind)
				}
				list := make([]netip.AddrPort, len(portals))
				for i, p := range portals {
					var err error
					if list[i], err = serve.ParsePortal(p, array.DefaultDiscoveryPort); err != nil {
						return usage("%w", err)
					}
				}
				text := f.Text(list...)
				if a.format != formatTable {
					return a.printValue(object{{"kind", f.Kind}, {"path", f.Path}, {"text", text}})
				}
				fmt.Fprint(a.Out, text)
				return nil
			}
			return usage("there is no host configuration %q: there are %s", args[0], joinWords(kinds))
		},
	}
	cmd.Flags().StringArrayVar(&portals, "portal", nil, "`ADDRESS` or ADDRESS:PORT of the array, for nvme-discovery; repeatable (port: 8009)")
	a.completeArgs(cmd, false, words(kinds...))
	return cmd
}
