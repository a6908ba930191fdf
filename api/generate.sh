#!/bin/sh
# Makes the Go code of the API from its .proto files, in place. Needs Go and the
# module proxy, nothing else. generated.sha256 lets a test tell, without the
# generator, that the code belongs to the .proto files beside it.
set -eu
cd "$(dirname "$0")"
buf="go run github.com/bufbuild/buf/cmd/buf@v1.75.0"
$buf lint
$buf generate
sha256sum lintel/v1/*.proto lintel/v1/*.pb.go lintel/v1/lintelv1connect/*.go >generated.sha256
