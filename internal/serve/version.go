package serve

import (
	"runtime/debug"
	"strings"
)

// release is the version under development; a build of a tagged module
// says its own.
const release = "0.1.0-dev"

// revision is the product revision that INQUIRY reports, at most 4 characters.
const revision = "0.1"

// Version returns the version of this program, with the commit it was built
// from where the build knows it.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return release
	}
	if v := info.Main.Version; v != "" && v != "(devel)" && !strings.HasPrefix(v, "v0.0.0-") {
		return strings.TrimPrefix(v, "v")
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	commit := settings["vcs.revision"]
	if len(commit) < 12 {
		return release
	}
	version := release + "+" + commit[:12]
	if settings["vcs.modified"] == "true" {
		version += ".modified"
	}
	return version
}
