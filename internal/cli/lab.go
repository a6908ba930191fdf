package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"lintel.io/lintel/lab"
)

func (a *app) labCommand() *cobra.Command {
	return noun("lab", "A virtual SAN on this machine, with real Linux kernels",
		`A lab is a SAN on this machine: guests with real Linux kernels, networks between
them, and disks. A guest is a User Mode Linux kernel, an ordinary process; nothing
is needed of the machine but Linux, as root or where users may make namespaces.

"lintel lab up single" starts one head with an array and one host that uses a volume of
it over two paths. Guests start in seconds; building their kernel and their root
file system takes six to ten minutes on two processors, once.`,
		"  lintel lab build\n  lintel lab up single\n  lintel lab shell host1\n  lintel lab down",
		a.labBuildCommand(), a.labUpCommand(), a.labStatusCommand(), a.labShellCommand(), a.labRunCommand(),
		a.labFailCommand(), a.labHealCommand(), a.labDownCommand(), a.labGCCommand(),
		a.labKeepCommand(), a.labAgentCommand(), a.labPowerCommand())
}

func (a *app) labBuildCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "build",
		Short: "Build the guests' kernel and root file system",
		Long: `Builds what guests start from, unless it is there: a kernel from Debian's
linux-source-6.1 (six to ten minutes on two processors) and a root file system by mmdebstrap (a
minute). Both are kept in lintel/lab in the user's cache folder, or in $LINTEL_LAB_CACHE, and
built anew only when their recipe changes. $LINTEL_LAB_KERNEL names a kernel to use
instead, which may be compressed (.xz).`,
		Example: "  lintel lab build\n  LINTEL_LAB_KERNEL=./linux.xz lintel lab build",
		Args:    takes(""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			images, err := lab.BuildImages(cmd.Context(), a.labProgress())
			if err != nil {
				return err
			}
			if a.format != formatTable {
				return a.printValue(object{{"kernel", images.Kernel}, {"root", images.Root}})
			}
			return writeDetails(a.Out, a.colour(), []detail{{"Kernel", images.Kernel}, {"Root file system", images.Root}})
		},
	}
}

// labProgress tells people what takes so long.
func (a *app) labProgress() lab.Progress {
	return func(step string) { fmt.Fprintln(a.Err, printable(step)) }
}

func (a *app) labUpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "up single|FILE",
		Short: "Start a lab",
		Long: `Starts a lab and leaves it running. "single" is one head with an array and one
Linux host that is logged in over two networks and has the volume as a multipath
device. FILE describes other labs, in TOML:

  name = "pair"
  networks = ["san-a", "san-b"]

  [[guest]]
  name = "head1"
  role = "head"

  [[guest]]
  name = "host1"
  memory = "512MiB"
  cpu = 1
  networks = ["san-a"]

  [[disk]]
  name = "data"
  size = "2GiB"
  guests = ["head1"]

Every guest is in the network mgmt as well. Network number n has the addresses
10.77.n.0/24 and fd77:0:0:n::/64; the first guest is 11 in each of them. A disk is
/dev/lab/NAME in its guests; several guests share it.`,
		Example: "  lintel lab up single\n  lintel lab up ./pair.toml",
		Args:    takes("single|FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			topology, setUp := lab.Single(), lab.SetUpSingle
			if args[0] != "single" {
				var err error
				if topology, err = lab.LoadTopology(args[0]); err != nil {
					return usage("%w", err)
				}
				setUp = func(context.Context, *lab.Lab) error { return nil }
			}
			images, err := lab.BuildImages(ctx, a.labProgress())
			if err != nil {
				return err
			}
			program, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			start := time.Now()
			l, err := lab.Start(ctx, topology, lab.Options{Program: program, Images: images})
			if err != nil {
				return a.labFailure(err)
			}
			if err := setUp(ctx, l); err != nil {
				return a.labFailure(errors.Join(err, l.Close()))
			}
			if err := l.Detach(ctx); err != nil {
				return errors.Join(err, l.Close())
			}
			a.say("Lab %s is up after %.1f s.", l.Name(), time.Since(start).Seconds())
			return a.printLab(ctx, l)
		},
	}
}

// labFailure prints an error that may have the end of a guest's console in it, line
// by line.
func (a *app) labFailure(err error) error {
	for line := range strings.Lines("lintel: " + err.Error()) {
		fmt.Fprintln(a.Err, printable(strings.TrimRight(line, "\r\n")))
	}
	return &codeError{ExitError, errSilent}
}

// labFlag chooses among labs that run.
type labFlag struct{ name string }

func (f *labFlag) flag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.name, "lab", "", "the lab, by `NAME` (default: the only one that runs)")
}

func (f *labFlag) attach() (*lab.Lab, error) {
	names, err := lab.List()
	switch {
	case err != nil:
		return nil, err
	case f.name == "" && len(names) == 0:
		return nil, fail(ExitNotFound, "no lab runs: start one with lintel lab up single")
	case f.name == "" && len(names) > 1:
		return nil, usage("several labs run, name one, as NAME or with --lab: %s", joinWords(names))
	case f.name == "":
		f.name = names[0]
	}
	l, err := lab.Attach(f.name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fail(ExitNotFound, "no lab %s runs", f.name)
	}
	return l, err
}

// machine attaches to the lab and finds one of its guests.
func (f *labFlag) machine(name string) (*lab.Lab, *lab.Machine, error) {
	l, err := f.attach()
	if err != nil {
		return nil, nil, err
	}
	names := []string{lab.HostSide}
	for _, g := range l.Topology.Guests {
		if g.Name == name {
			return l, l.Machine(name), nil
		}
		names = append(names, g.Name)
	}
	if name == lab.HostSide {
		return l, l.Machine(name), nil
	}
	return nil, nil, fail(ExitNotFound, "lab %s has no guest %s: it has %s", l.Name(), name, joinWords(names))
}

func (a *app) labStatusCommand() *cobra.Command {
	var which labFlag
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show the guests of a lab and their links",
		Long:    "Shows the guests of a lab: whether they are up, their addresses and which links are cut.",
		Example: "  lintel lab status\n  lintel lab status --lab single-2 -o json",
		Args:    takes(""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := which.attach()
			if err != nil {
				return err
			}
			return a.printLab(cmd.Context(), l)
		},
	}
	which.flag(cmd)
	return cmd
}

func (a *app) printLab(ctx context.Context, l *lab.Lab) error {
	status, err := l.Status(ctx)
	if err != nil {
		return fail(ExitUnreachable, "lab %s does not answer: %w", l.Name(), err)
	}
	if a.format != formatTable {
		return a.printValue(labDocument(status))
	}
	return writeTable(a.Out, a.colour(), []column[lab.GuestStatus]{
		{head: "GUEST", text: func(g lab.GuestStatus) string { return g.Name }},
		{head: "ROLE", text: func(g lab.GuestStatus) string { return g.Role }},
		{head: "STATE", text: func(g lab.GuestStatus) string { return g.State }},
		{head: "BOOT", text: func(g lab.GuestStatus) string { return fmt.Sprintf("%.1fs", float64(g.BootMS)/1000) }, right: true},
		{head: "CPU", text: func(g lab.GuestStatus) string { return fmt.Sprint(g.CPU) }, right: true},
		{head: "NETWORKS", text: labNetworks},
	}, status.Guests)
}

// labNetworks writes a guest's links in one cell.
func labNetworks(g lab.GuestStatus) string {
	var words []string
	for _, n := range g.Networks {
		word := n.Name + "=" + n.Address
		if n.Cut != "" {
			word += "(cut:" + string(n.Cut) + ")"
		}
		words = append(words, word)
	}
	return strings.Join(words, ",")
}

func labDocument(s lab.Status) object {
	guests := make([]object, 0, len(s.Guests))
	for _, g := range s.Guests {
		networks := make([]object, 0, len(g.Networks))
		for _, n := range g.Networks {
			networks = append(networks, object{{"name", n.Name}, {"address", n.Address}, {"cut", string(n.Cut)}})
		}
		guests = append(guests, object{
			{"name", g.Name}, {"role", g.Role}, {"state", g.State}, {"pid", g.Pid}, {"cpu", g.CPU},
			{"boots", g.Boots}, {"bootMs", g.BootMS}, {"networks", networks},
		})
	}
	return object{{"name", s.Name}, {"ready", s.Ready}, {"started", s.Started.UTC().Format(time.RFC3339)}, {"guests", guests}}
}

func (a *app) labShellCommand() *cobra.Command {
	var which labFlag
	cmd := &cobra.Command{
		Use:   "shell GUEST",
		Short: "Open a shell on a guest",
		Long: `Opens a root shell on a guest, or with "lab" on the host side of the lab's
networks. The guest's lintel is this program.`,
		Example: "  lintel lab shell host1\n  lintel lab shell lab",
		Args:    takes("GUEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, m, err := which.machine(args[0])
			if err != nil {
				return err
			}
			rows, columns := 24, 80
			if fd, tty := terminal(a.In); tty {
				if c, r, err := term.GetSize(fd); err == nil {
					rows, columns = r, c
				}
				state, err := term.MakeRaw(fd)
				if err != nil {
					return fmt.Errorf("terminal: %w", err)
				}
				defer func() { _ = term.Restore(fd, state) }() // nothing else could be done
			}
			return m.Shell(cmd.Context(), a.In, a.Out, rows, columns, a.Getenv("TERM"))
		},
	}
	which.flag(cmd)
	return cmd
}

func (a *app) labRunCommand() *cobra.Command {
	var which labFlag
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "run GUEST COMMAND...",
		Short: "Run a command on a guest",
		Long: `Runs a command on a guest and ends with its exit code. A command with flags of its
own, or a pipeline, is written as one word, which a shell takes apart.`,
		Example: "  lintel lab run host1 lsblk\n  lintel lab run host1 'multipath -ll'\n  lintel lab run head1 -- lintel volume list",
		Args:    takes("GUEST COMMAND..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, m, err := which.machine(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			argv := args[1:]
			if len(argv) == 1 {
				argv = []string{"bash", "-c", argv[0]}
			}
			result, err := m.Run(ctx, argv...)
			fmt.Fprint(a.Out, result.Stdout)
			fmt.Fprint(a.Err, result.Stderr)
			if e, ok := errors.AsType[*lab.RunError](err); ok && !e.Result.TimedOut {
				return &codeError{max(e.Result.Code, ExitError), errSilent}
			}
			return err
		},
	}
	which.flag(cmd)
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "kill the command after this `TIME`")
	return cmd
}

func (a *app) labDownCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:     "down [NAME]",
		Short:   "End a lab; nothing of it stays",
		Long:    "Ends a lab, the only one that runs or the one named: its guests, networks and disks are gone.",
		Example: "  lintel lab down\n  lintel lab down single-2\n  lintel lab down --all",
		Args:    takes("[NAME]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var names []string
			switch {
			case all:
				var err error
				if names, err = lab.List(); err != nil {
					return err
				}
			default:
				names = append(names, strings.Join(args, ""))
			}
			for _, name := range names {
				which := labFlag{name}
				l, err := which.attach()
				if err != nil {
					return err
				}
				if err := l.Close(); err != nil {
					return err
				}
				a.say("Lab %s is gone.", l.Name())
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "end all labs of this user")
	return cmd
}

func (a *app) labGCCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what labs left and images of old recipes",
		Long: `Removes the folders of labs that do not run, and the cached kernels and root file
systems that this program would not start a guest from and that no lab uses. Processes
and networks of a lab end with it whatever happens; only a crash of the machine, or
SIGKILL of the lab's first process, leaves its folder.`,
		Example: "  lintel lab gc --dry-run\n  lintel lab gc",
		Args:    takes(""),
		RunE: func(*cobra.Command, []string) error {
			labs, err := lab.CollectGarbage(dryRun)
			verb := map[bool]string{false: "Removed", true: "Would remove"}[dryRun]
			for _, name := range labs {
				a.say("%s what was left of lab %s.", verb, name)
			}
			images, imagesErr := lab.CollectImages(dryRun)
			for _, path := range images {
				a.say("%s %s.", verb, path)
			}
			return errors.Join(err, imagesErr)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be removed")
	return cmd
}
