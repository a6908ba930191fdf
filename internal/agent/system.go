package agent

import (
	"cmp"
	"context"
	"os"

	"connectrpc.com/connect"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
	"lintel.io/lintel/api/lintel/v1/lintelv1connect"
	"lintel.io/lintel/internal/array"
)

type systemService struct{ *Agent }

var _ lintelv1connect.SystemServiceHandler = systemService{}

func (s systemService) GetInfo(context.Context, *connect.Request[lintelv1.GetInfoRequest]) (*connect.Response[lintelv1.GetInfoResponse], error) {
	doc := s.State().Document
	return connect.NewResponse(&lintelv1.GetInfoResponse{
		Version: s.opts.Version, Array: doc.Name, ArrayId: doc.ID, Head: doc.Target.PortGroups[0].Head,
		Started: timeMessage(s.started), Format: array.Format, DataDir: s.opts.DataDir, Pid: int64(os.Getpid()),
	}), nil
}

func (s systemService) GetHealth(ctx context.Context, _ *connect.Request[lintelv1.GetHealthRequest]) (*connect.Response[lintelv1.GetHealthResponse], error) {
	return connect.NewResponse(&lintelv1.GetHealthResponse{Alerts: s.alerts(s.look(ctx, AllVolumes))}), nil
}

func arrayMessage(doc *array.Document) *lintelv1.Array {
	return &lintelv1.Array{
		Id: doc.ID, Etag: doc.Etag(), Created: timeMessage(doc.Created),
		Spec: &lintelv1.ArraySpec{Name: doc.Name, NaaPrefix: doc.Settings.NAAPrefix},
	}
}

func (s systemService) GetArray(context.Context, *connect.Request[lintelv1.GetArrayRequest]) (*connect.Response[lintelv1.GetArrayResponse], error) {
	return connect.NewResponse(&lintelv1.GetArrayResponse{Array: arrayMessage(s.State().Document)}), nil
}

func (s systemService) UpdateArray(ctx context.Context, req *connect.Request[lintelv1.UpdateArrayRequest]) (*connect.Response[lintelv1.UpdateArrayResponse], error) {
	spec := req.Msg.GetSpec()
	c, err := s.mutate(ctx, req.Msg.GetDryRun(), func(state *array.State) (*change, error) {
		var badMask error
		next, plan, err := state.UpdateArray(req.Msg.GetEtag(), func(name *string, settings *array.Settings) {
			badMask = edits(req.Msg.GetUpdateMask(), map[string]func(){
				"name":       func() { *name = spec.GetName() },
				"naa_prefix": func() { settings.NAAPrefix = spec.GetNaaPrefix() },
			}, "")
		})
		return &change{state: next, plan: plan}, cmp.Or(badMask, err)
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&lintelv1.UpdateArrayResponse{Array: arrayMessage(c.state.Document), Plan: planMessage(c.plan)}), nil
}
