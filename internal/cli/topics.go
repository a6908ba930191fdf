package cli

import "github.com/spf13/cobra"

// helpTopics are pages of help that are not commands.
func helpTopics() []*cobra.Command {
	return []*cobra.Command{
		{
			Use:   "exit-codes",
			Short: "What the exit codes mean",
			Long: `Every command ends with one of these codes:

  0  done
  1  any failure without a code of its own
  2  wrong flags, arguments or values; nothing was done
  4  the named object does not exist
  5  conflict: it exists already, is in use, or was changed meanwhile
  6  permission denied
  7  no array answers
  8  degraded: it works, but not as it should (lintel health, lintel check)`,
		},
		{
			Use:   "output",
			Short: "What -o json and -o yaml print",
			Long: `With -o json or -o yaml commands print the messages of the API, whose definition is
the schema:

  list     an array of objects
  show     one object
  changes  the API's response: the object after the change, and the plan, which is
           what was done, or would be done with --dry-run (identifiers that the
           array makes are others each time)
  stats    one object with the counters

Every field is always there, under its name in the API definition and in its order,
so that a script can rely on it. Fields are added, never renamed or removed.

  number       a number; sizes are bytes
  enumeration  a lower-case word: VOLUME_KIND_FILE is "file"
  time         RFC 3339, in UTC
  bytes        hexadecimal digits
  not set      null

With --watch, json prints one document after another and yaml separates them by
a line "---". Errors go to standard error, the warnings about a change are
in its plan. The array never gives secrets away.`,
		},
		{
			Use:   "server",
			Short: "How commands find the array",
			Long: `Commands talk to the API of an array that runs. The first of these counts:

  --server unix:PATH or --server http://HOST:PORT
  --data-dir DIR, for the array that serves this directory
  LINTEL_SERVER, written like --server
  LINTEL_DATA_DIR, written like --data-dir
  the default data directory: /var/lib/lintel for root, else lintel in
  XDG_DATA_HOME or in ~/.local/share

The API on the unix socket is for the user that runs the array. NO_COLOR turns
colours off; output that does not go to a terminal has none.`,
		},
	}
}
