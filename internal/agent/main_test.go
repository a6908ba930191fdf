package agent_test

import (
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/reflect/protoreflect"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// descriptors are the files of the API.
var descriptors = []protoreflect.FileDescriptor{
	lintelv1.File_lintel_v1_pool_proto, lintelv1.File_lintel_v1_volume_proto, lintelv1.File_lintel_v1_host_proto,
	lintelv1.File_lintel_v1_host_group_proto, lintelv1.File_lintel_v1_mapping_proto, lintelv1.File_lintel_v1_target_proto,
	lintelv1.File_lintel_v1_session_proto, lintelv1.File_lintel_v1_stats_proto, lintelv1.File_lintel_v1_system_proto,
}
