// Command lintel is a SAN array, its command line and its tools in one binary.
package main

import (
	"context"
	"os"

	"lintel.io/lintel/internal/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], cli.System()))
}
