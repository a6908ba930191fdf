// Package serve runs a whole single-head array in one process: it puts the
// pools, the agent and the target together on one data directory.
package serve

import (
	"context"
	"io"
)

// Run serves the data directory until ctx is cancelled.
func Run(ctx context.Context, config Config, out, log io.Writer) error {
	<-ctx.Done()
	return nil
}
