package lab

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// rootRecipe is raised when makeRoot changes in a way that its inputs do not show.
const rootRecipe = "1"

// rootSuite is the Debian release that guests run.
const rootSuite = "bookworm"

//go:embed image/packages.txt
var rootPackages string

//go:embed image/init.sh
var rootInit string

// rootImage is the guests' root file system.
func rootImage() image {
	return image{
		name:   "root",
		inputs: func() (string, error) { return rootRecipe + rootSuite + rootPackages + rootInit, nil },
		make:   makeRoot,
	}
}

// packageNames returns the packages of a list with comments.
func packageNames(list string) []string {
	var names []string
	for line := range strings.Lines(list) {
		if name := strings.TrimSpace(line); name != "" && name[0] != '#' {
			names = append(names, name)
		}
	}
	return names
}

func makeRoot(ctx context.Context, out, work string, log io.Writer) error {
	if err := needPrograms("mmdebstrap and e2fsprogs", "mmdebstrap", "mke2fs", "debugfs"); err != nil {
		return err
	}
	init := filepath.Join(work, "init.sh")
	if err := os.WriteFile(init, []byte(rootInit), 0o755); err != nil {
		return err
	}
	fmt.Fprintln(log, stepPrefix+"root file system: installing Debian packages, about a minute")
	// The hooks run where the new system's owners are in force, so the image can
	// be made without mounting anything.
	err := buildStep(ctx, log, work, "mmdebstrap", "--variant=apt",
		"--include="+strings.Join(packageNames(rootPackages), ","),
		`--aptopt=APT::Install-Recommends "false"`,
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/info/*",
		"--customize-hook=upload "+init+" /sbin/lab-init",
		`--customize-hook=chmod 755 "$1/sbin/lab-init"`,
		`--customize-hook=mkdir -p "$1/lab" && : >"$1/etc/machine-id" && chroot "$1" passwd -d root`,
		`--customize-hook=echo "/dev/ubda / ext4 defaults,noatime 0 0" >"$1/etc/fstab"`,
		`--customize-hook=rm -rf "$1"/var/cache/apt/*.bin "$1"/var/lib/apt/lists/*_*`,
		// The bind mount shows the tree without what is mounted in it, such as /proc.
		`--customize-hook=mkdir "$1.plain" && mount --bind "$1" "$1.plain" && truncate -s 1536M "`+out+`" &&
			mke2fs -q -t ext4 -J size=8 -m 0 -E lazy_itable_init=1,root_owner=0:0 -d "$1.plain" "`+out+`" && umount "$1.plain" && rmdir "$1.plain"`,
		rootSuite, "/dev/null")
	if err != nil {
		return err
	}
	if err := os.Chmod(out, 0o444); err != nil {
		return err
	}
	return verifyRoot(ctx, out)
}

// verifyRoot checks that an image has what the lab starts in its guests.
func verifyRoot(ctx context.Context, path string) error {
	if out, err := exec.CommandContext(ctx, "e2fsck", "-fn", path).CombinedOutput(); err != nil {
		return fmt.Errorf("the file system is damaged: %w: %.500s", err, out)
	}
	for _, file := range []string{"/sbin/lab-init", "/usr/sbin/iscsid", "/usr/sbin/multipathd", "/usr/bin/fio", "/usr/bin/sg_inq", "/usr/lib/systemd/systemd-udevd"} {
		out, err := exec.CommandContext(ctx, "debugfs", "-R", "stat "+file, path).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("Inode:")) {
			return fmt.Errorf("%s is missing in the image", file)
		}
	}
	return nil
}
