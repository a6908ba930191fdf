package serve

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"

	"lintel.io/lintel/internal/agent"
	"lintel.io/lintel/internal/control"
)

// RunAgent manages the array in the data directory, or makes one there, until ctx is done. The
// volumes are served by RunTarget in another process, which may come and go. config has
// been validated.
func RunAgent(ctx context.Context, config AgentConfig, out, logTo io.Writer) (err error) {
	r, err := begin(config.Common, logTo, ManagerRole)
	if err != nil {
		return err
	}
	defer r.end(&err)
	manager, err := agent.Open(agent.Options{DataDir: config.DataDir, Version: Version(), Logger: r.log})
	if err != nil {
		return fmt.Errorf("open the array in %s: %w", config.DataDir, err)
	}
	r.undo.add(manager.Close)
	plane := control.NewClient("unix:"+config.Target, func(ctx context.Context) (net.Conn, error) { return DialUnix(ctx, config.Target) })
	if err := manager.Start(ctx, plane); err != nil {
		return err
	}
	following, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { plane.Follow(following, r.log, manager.Reapply) })
	r.undo.add(func() error {
		stop()
		done.Wait()
		return nil
	})
	at, err := r.manage(config.Listen, manager, manager.Handler())
	if err != nil {
		return err
	}
	name := manager.State().Document.Name
	fmt.Fprintf(out, "lintel %s manages array %s\n\n", Version(), name)
	at.print(out)
	printLine(out, "target", "unix:"+config.Target)
	printLine(out, "data", config.DataDir)
	fmt.Fprint(out, manageText(config.DataDir))
	return r.run(ctx, "managing "+name)
}
