package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"lintel.io/lintel/internal/pool"
)

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check DIR",
		Short: "Examine a data directory that is not being served",
		Long: `Reads everything that an array keeps in its data directory, changes nothing, and
reports what is wrong. It exits with 0 where the directory is whole, with 8 where an
array can be served from it all the same, and with 1 where it cannot.`,
		Example: "  lintel check /var/lib/lintel\n  lintel check ./backup -o json",
		Args:    takes("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			report, err := pool.Check(args[0])
			if err != nil {
				return fmt.Errorf("check: %w", err)
			}
			if err := a.printCheck(args[0], report); err != nil {
				return err
			}
			switch {
			case report.Fatal():
				return errSilent
			case len(report.Problems) > 0:
				return &codeError{ExitDegraded, errSilent}
			}
			return nil
		},
	}
}

func (a *app) printCheck(dir string, r *pool.Report) error {
	if a.format != formatTable {
		problems := make([]object, len(r.Problems))
		for i, p := range r.Problems {
			problems[i] = object{{"path", p.Path}, {"offset", offset(p)}, {"text", p.Text}, {"fatal", p.Fatal}}
		}
		return a.printValue(object{
			{"array", r.Array}, {"generation", r.Generation}, {"pools", r.Pools}, {"volumes", r.Volumes}, {"hosts", r.Hosts},
			{"mappings", r.Mappings}, {"fatal", r.Fatal()}, {"problems", problems},
		})
	}
	if r.Array != "" {
		a.say("array %s, configuration version %d: %s, %s, %s, %s", r.Array, r.Generation,
			plural(r.Pools, "pool"), plural(r.Volumes, "volume"), plural(r.Hosts, "host"), plural(r.Mappings, "mapping"))
	}
	if len(r.Problems) == 0 {
		a.say("%s is whole", dir)
		return nil
	}
	for _, p := range r.Problems {
		word, s := "note ", yellow
		if p.Fatal {
			word, s = "fatal", red
		}
		fmt.Fprintf(a.Out, "%s  %s\n", paint(a.colour(), s, word), printable(p.String()))
	}
	if r.Fatal() {
		a.say("an array cannot be served from %s as it is; nothing was changed", dir)
	} else {
		a.say("an array can be served from %s all the same", dir)
	}
	return nil
}

// offset is null where the problem has no place in its file.
func offset(p pool.Problem) any {
	if p.Offset < 0 {
		return nil
	}
	return p.Offset
}
