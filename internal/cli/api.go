package cli

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/api/lintel/v1/lintelv1connect"
)

// api is the array that a command talks to, one client a noun.
type api struct {
	pools      lintelv1connect.PoolServiceClient
	volumes    lintelv1connect.VolumeServiceClient
	hosts      lintelv1connect.HostServiceClient
	hostGroups lintelv1connect.HostGroupServiceClient
	mappings   lintelv1connect.MappingServiceClient
	target     lintelv1connect.TargetServiceClient
	sessions   lintelv1connect.SessionServiceClient
	stats      lintelv1connect.StatsServiceClient
	system     lintelv1connect.SystemServiceClient
}

func (a *app) connect() (*api, error) {
	e, err := a.endpoint()
	if err != nil {
		return nil, err
	}
	with := connect.WithInterceptors(e.explain())
	return &api{
		pools:      lintelv1connect.NewPoolServiceClient(e.client, e.base, with),
		volumes:    lintelv1connect.NewVolumeServiceClient(e.client, e.base, with),
		hosts:      lintelv1connect.NewHostServiceClient(e.client, e.base, with),
		hostGroups: lintelv1connect.NewHostGroupServiceClient(e.client, e.base, with),
		mappings:   lintelv1connect.NewMappingServiceClient(e.client, e.base, with),
		target:     lintelv1connect.NewTargetServiceClient(e.client, e.base, with),
		sessions:   lintelv1connect.NewSessionServiceClient(e.client, e.base, with),
		stats:      lintelv1connect.NewStatsServiceClient(e.client, e.base, with),
		system:     lintelv1connect.NewSystemServiceClient(e.client, e.base, with),
	}, nil
}

// with makes the body of a command that talks to the array.
func (a *app) with(f func(ctx context.Context, c *api, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		return f(cmd.Context(), c, args)
	}
}

// call makes one call of the API.
func call[Req, Res any](ctx context.Context, method func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error), req *Req) (*Res, error) {
	res, err := method(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

// planned is what every response to a mutation is.
type planned interface {
	proto.Message
	GetPlan() *lintelv1.Plan
}

// report prints the outcome of a mutation: for people a sentence in the past
// tense, or the plan of a dry run, with the warnings on standard error; else
// the array's response.
func (a *app) report(dry bool, res planned, done string, args ...any) error {
	if a.format != formatTable {
		return a.printValue(document(res))
	}
	for _, warning := range res.GetPlan().GetWarnings() {
		fmt.Fprintln(a.Err, "warning:", printable(warning))
	}
	if !dry {
		a.say(done, args...)
		return nil
	}
	if len(res.GetPlan().GetSteps()) == 0 {
		a.say("Nothing was changed, and nothing would be without --dry-run: it is so already.")
		return nil
	}
	a.say("Nothing was changed. Without --dry-run this would:")
	for _, step := range res.GetPlan().GetSteps() {
		a.say("  %s", step)
	}
	return nil
}
