// Diskvault backs up disks, and says why a backup is slow.
package main

import (
	"os"

	"github.com/diskvault/diskvault/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
