// The generators of this project's generated code, apart from the program's own
// requirements. scripts/generate.sh runs them.
module github.com/adit-ipsec/adit/tools

go 1.26.4

tool (
	connectrpc.com/connect/cmd/protoc-gen-connect-go
	google.golang.org/protobuf/cmd/protoc-gen-go
)

require (
	connectrpc.com/connect v1.21.1 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)
