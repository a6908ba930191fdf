package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// kernelRecipe is raised when makeKernel changes in a way that its inputs do not show.
const kernelRecipe = "1"

// kernelPatch is what the source needs before it is built; it says why itself.
var (
	//go:embed image/kernel.config
	kernelConfig string
	//go:embed image/kernel.patch
	kernelPatch string
)

// kernelPackage is the Debian package that the kernel is built from, and
// kernelSource the file in it.
const (
	kernelPackage = "linux-source-6.1"
	kernelSource  = "/usr/src/linux-source-6.1.tar.xz"
)

// kernelImage is the lab's own kernel.
func kernelImage() image {
	return image{
		name: "kernel",
		inputs: func() (string, error) {
			// A newer source package alone is no reason to build for minutes.
			return kernelRecipe + kernelPackage + kernelConfig + kernelPatch, nil
		},
		make: makeKernel,
	}
}

func makeKernel(ctx context.Context, out, work string, log io.Writer) error {
	const packages = kernelPackage + ", build-essential, flex, bison, bc and xz-utils"
	if err := needPrograms(packages, "make", "gcc", "patch", "flex", "bison", "bc", "xz", "tar"); err != nil {
		return err
	}
	if _, err := os.Stat(kernelSource); err != nil {
		return fmt.Errorf("%w: install Debian's packages %s (test/lab-deps.sh does)", err, packages)
	}
	fragment, patch := filepath.Join(work, "lab.config"), filepath.Join(work, "lab.patch")
	for path, text := range map[string]string{fragment: kernelConfig, patch: kernelPatch} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	fmt.Fprintln(log, stepPrefix+"kernel: unpacking the source")
	if err := buildStep(ctx, log, work, "tar", "xf", kernelSource); err != nil {
		return err
	}
	tree := filepath.Join(work, "linux-source-6.1")
	fmt.Fprintln(log, stepPrefix+"kernel: patching and configuring")
	if err := applyPatch(ctx, log, tree, patch); err != nil {
		return err
	}
	for _, argv := range [][]string{
		{"make", "ARCH=um", "defconfig"},
		{"scripts/kconfig/merge_config.sh", "-m", ".config", fragment},
		{"make", "ARCH=um", "olddefconfig"},
	} {
		if err := buildStep(ctx, log, tree, argv...); err != nil {
			return err
		}
	}
	config, err := os.ReadFile(filepath.Join(tree, ".config"))
	if err != nil {
		return err
	}
	if missing := missingOptions(kernelConfig, string(config)); len(missing) > 0 {
		return fmt.Errorf("the configuration lost %s", strings.Join(missing, ", "))
	}
	jobs := fmt.Sprintf("-j%d", runtime.NumCPU())
	fmt.Fprintln(log, stepPrefix+"kernel: compiling, six to ten minutes on two processors")
	if err := buildStep(ctx, log, tree, "make", "ARCH=um", jobs, "linux"); err != nil {
		return err
	}
	if err := buildStep(ctx, log, tree, "strip", "-o", out, "linux"); err != nil {
		return err
	}
	return verifyKernel(ctx, out)
}

// applyPatch changes a source tree as a patch says, unless the source has the change already:
// a newer one may come with it.
func applyPatch(ctx context.Context, log io.Writer, tree, patch string) error {
	try := func(out io.Writer, options ...string) error {
		argv := append([]string{"patch", "-p1", "--force", "--reject-file=-", "-i", patch}, options...)
		return buildStep(ctx, out, tree, argv...)
	}
	if try(log, "--reverse", "--dry-run") == nil {
		fmt.Fprintln(log, stepPrefix+"kernel: the source has the patch already")
		return nil
	}
	var said strings.Builder
	err := try(io.MultiWriter(log, &said), "--forward", "--dry-run")
	if err == nil {
		return try(log, "--forward")
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("the lab's patch does not fit %s in %s: %w; install the version of Debian's %s that it was made for (lab/image/kernel.patch), "+
		"or set %s to a kernel that is built already", misfits(said.String()), kernelSource, err, kernelPackage, KernelVariable)
}

// misfits names the files for which patch(1), as its output says, found no place for a change.
func misfits(output string) string {
	var files []string
	at := ""
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "checking file "); ok {
			at = name
		} else if name, ok := strings.CutPrefix(line, "|+++ b/"); ok { // a file that is not there
			at = name
		} else if strings.Contains(line, " out of ") && !slices.Contains(files, at) {
			files = append(files, at)
		}
	}
	if len(files) == 0 {
		return "the source"
	}
	return strings.Join(files, ", ")
}

// missingOptions returns what a fragment asks for and a configuration does not have.
func missingOptions(fragment, config string) []string {
	have := map[string]bool{}
	for line := range strings.Lines(config) {
		have[strings.TrimSpace(line)] = true
	}
	var missing []string
	for line := range strings.Lines(fragment) {
		line = strings.TrimSpace(line)
		name, off := strings.CutPrefix(line, "# CONFIG_")
		switch {
		case strings.HasPrefix(line, "CONFIG_") && !have[line]:
			missing = append(missing, line)
		case off && strings.HasSuffix(name, " is not set"):
			option := "CONFIG_" + strings.TrimSuffix(name, " is not set")
			if have[option+"=y"] || have[option+"=m"] {
				missing = append(missing, line)
			}
		}
	}
	return missing
}

// givenKernel is a kernel that somebody else built.
func givenKernel(path string) image {
	return image{
		name: "kernel-given",
		inputs: func() (string, error) {
			info, err := os.Stat(path)
			if err != nil {
				return "", fmt.Errorf("%s: %w", KernelVariable, err)
			}
			return fmt.Sprintln(path, info.Size(), info.ModTime().UnixNano()), nil
		},
		make: func(ctx context.Context, out, work string, log io.Writer) error {
			argv := []string{"cp", path, out}
			if strings.HasSuffix(path, ".xz") {
				argv = []string{"sh", "-c", `xz -dc "$1" >"$2"`, "sh", path, out}
			}
			if err := buildStep(ctx, log, work, argv...); err != nil {
				return err
			}
			if err := os.Chmod(out, 0o755); err != nil {
				return err
			}
			return verifyKernel(ctx, out)
		},
	}
}

// verifyKernel checks that a file is a User Mode Linux kernel that runs here.
func verifyKernel(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("the kernel does not run: %w: %.200s", err, out)
	}
	if version := strings.TrimSpace(string(out)); version == "" || version[0] < '4' || version[0] > '9' {
		return errors.New("this is no User Mode Linux kernel: --version prints " + version)
	}
	return nil
}
