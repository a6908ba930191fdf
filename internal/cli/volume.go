package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	lintelv1 "lintel.io/lintel/api/lintel/v1"
)

func (a *app) volumeCommand() *cobra.Command {
	return noun("volume", "Volumes: block devices with a permanent identity",
		`A volume is a block device with an identity of its own (NAA, EUI-64, serial
number) that never changes by itself. No host sees it until it is mapped.`,
		`  lintel volume create db1 --size 10GiB
  lintel volume list
  lintel volume resize db1 20GiB
  lintel volume set db1 read_only=true`,
		a.volumeCreate(), a.volumeList(), a.volumeShow(), a.volumeResize(), a.volumeSet(), a.volumeReopen(), a.volumeDelete())
}

// volumeAttributes are what volume set changes; pool, kind, path and block size
// stay as they were made.
var volumeAttributes = []string{
	"name", "naa_id", "eui64_id", "t10_dev_id", "usn", "vendor", "product", "revision", "rotational",
	"thin", "read_only", "write_through", "physical_exponent", "thin_threshold_percent", "comment",
}

// volumeFlags adds the flags that create and set have in common.
func volumeFlags(cmd *cobra.Command, at *attributes) {
	at.flag(cmd, "naa-id", "naa_id", "NAA identifier, 16 or 32 hex digits (default: made by the array)")
	at.flag(cmd, "eui64-id", "eui64_id", "EUI-64 identifier, 16, 24 or 32 hex digits (default: made by the array)")
	at.flag(cmd, "t10-dev-id", "t10_dev_id", "vendor specific part of the T10 designator (default: the volume's id)")
	at.flag(cmd, "usn", "usn", "unit serial number (default: made by the array)")
	at.flag(cmd, "vendor", "vendor", "INQUIRY vendor, at most 8 characters (default LINTEL)")
	at.flag(cmd, "product", "product", "INQUIRY product, at most 16 characters (default VIRTUAL-DISK)")
	at.flag(cmd, "revision", "revision", "INQUIRY revision, at most 4 characters")
	at.flag(cmd, "rotational", "rotational", "tell initiators that the medium rotates")
	at.flag(cmd, "read-only", "read_only", "no initiator may write")
	at.flag(cmd, "write-through", "write_through", "answer a write only when it is on stable storage (no write cache)")
	at.flag(cmd, "physical-exponent", "physical_exponent", "log2 of logical blocks in a physical block, 0 to 8")
	at.flag(cmd, "thin-threshold-percent", "thin_threshold_percent", "warn initiators when this part of a thin volume is used, 1 to 99 (0 for never)")
	at.flag(cmd, "comment", "comment", "free text, at most 255 bytes")
	at.flag(cmd, "thick", "thin", "take all its space now, and keep it (default: only what is written)").opposite = true
}

func (a *app) volumeCreate() *cobra.Command {
	spec := &lintelv1.VolumeSpec{}
	at := attributesOf(spec)
	var ch change
	cmd := &cobra.Command{
		Use:   "create NAME --size SIZE",
		Short: "Make a volume",
		Long: `Makes a volume. Sizes are numbers with KiB, MiB, GiB, TiB or PiB (powers of 1024),
kB, MB, GB, TB or PB (powers of 1000), or K, M, G, T or P (powers of 1024); without
a unit they are bytes. The size is rounded up to the pool's extent.

The kinds are file (in the pool), mem (memory: lost when the array stops), null
(reads zeros and forgets writes, for measurements) and disk (a block device of
the head, named by --path).`,
		Example: `  lintel volume create db1 --size 10GiB
  lintel volume create vm --size 2TB --block-size 4096 --pool archive
  lintel volume create raw1 --kind disk --path /dev/disk/by-id/wwn-0x5000c500a1b2c3d4
  lintel volume create old1 --size 10GiB --naa-id 0x600508b400105e210000900000490000 --usn 4711`,
		Args: takes("NAME"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			spec.Name = args[0]
			if spec.GetSizeBytes() == 0 && spec.GetKind() != lintelv1.VolumeKind_VOLUME_KIND_DISK {
				return usage("how large shall %s be? Add --size, such as --size 10GiB", args[0])
			}
			if spec.GetPath() == "" && spec.GetKind() == lintelv1.VolumeKind_VOLUME_KIND_DISK {
				return usage("which block device is %s? Add --path, such as --path /dev/disk/by-id/wwn-0x5000c500a1b2c3d4", args[0])
			}
			res, err := call(ctx, c.volumes.CreateVolume, &lintelv1.CreateVolumeRequest{Spec: spec, DryRun: ch.dry})
			if err != nil {
				return err
			}
			made := res.GetVolume().GetSpec()
			return a.report(ch.dry, res, "created volume %s, %s%s, in pool %s", made.GetName(),
				formatSize(made.GetSizeBytes()), rounded(res.GetRequestedBytes(), made.GetSizeBytes()), made.GetPool())
		}),
	}
	at.flag(cmd, "size", "size_bytes", "capacity, such as 10GiB")
	at.flag(cmd, "pool", "pool", "pool that holds it (default: the system pool)")
	at.flag(cmd, "kind", "kind", "where its bytes are kept (default file)")
	at.flag(cmd, "path", "path", "block device, for --kind disk")
	at.flag(cmd, "block-size", "block_size", "logical block size in bytes, 512 or 4096 (default 512)")
	volumeFlags(cmd, at)
	ch.dryFlag(cmd)
	mustRegister(cmd, "block-size", []string{"512", "4096"})
	a.completeFlag(cmd, "pool", poolNames)
	return cmd
}

// rounded says from which size the array has rounded up.
func rounded(asked, got uint64) string {
	if asked == got || asked == 0 {
		return ""
	}
	return fmt.Sprintf(" (%s bytes, rounded up from %s)", formatCount(got), formatCount(asked))
}

func (a *app) volumeList() *cobra.Command {
	var w watch
	var pool string
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the volumes",
		Example: "  lintel volume list\n  lintel volume list --pool archive -o yaml\n  lintel volume list --watch=5s",
		Args:    takes(""),
		RunE: a.with(func(ctx context.Context, c *api, _ []string) error {
			return w.run(ctx, a, func() error {
				res, err := call(ctx, c.volumes.ListVolumes, &lintelv1.ListVolumesRequest{Pool: pool})
				if err != nil {
					return err
				}
				return printList(a, volumeColumns, res.GetVolumes())
			})
		}),
	}
	cmd.Flags().StringVar(&pool, "pool", "", "only the volumes of `POOL`")
	a.completeFlag(cmd, "pool", poolNames)
	w.flags(cmd)
	return cmd
}

var volumeColumns = []column[*lintelv1.Volume]{
	{head: "NAME", text: func(v *lintelv1.Volume) string { return v.GetSpec().GetName() }},
	{head: "SIZE", right: true, text: func(v *lintelv1.Volume) string { return formatSize(v.GetSpec().GetSizeBytes()) }},
	{head: "USED", right: true, text: func(v *lintelv1.Volume) string { return known(v.GetStatus().UsedBytes, formatSize) }},
	{head: "KIND", text: func(v *lintelv1.Volume) string { return word(v.GetSpec().GetKind()) }},
	{head: "POOL", text: func(v *lintelv1.Volume) string { return v.GetSpec().GetPool() }},
	{head: "STATE", text: func(v *lintelv1.Volume) string { return word(v.GetStatus().GetState()) }, style: func(v *lintelv1.Volume) style {
		return goodIf(v.GetStatus().GetState() == lintelv1.VolumeState_VOLUME_STATE_ONLINE)
	}},
	{head: "ACCESS", text: func(v *lintelv1.Volume) string { return accessWord(v.GetSpec().GetReadOnly()) }},
	{head: "MAPPINGS", right: true, text: func(v *lintelv1.Volume) string { return fmt.Sprint(v.GetStatus().GetMappings()) }},
	{head: "SESSIONS", right: true, text: func(v *lintelv1.Volume) string { return known(v.GetStatus().Sessions, countText[uint32]) }},
	{head: "NAA", text: func(v *lintelv1.Volume) string { return v.GetSpec().GetNaaId() }},
}

func accessWord(readOnly bool) string {
	if readOnly {
		return "ro"
	}
	return "rw"
}

func (a *app) volumeShow() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "show VOLUME",
		Short:   "Show one volume with its identity",
		Example: "  lintel volume show db1\n  lintel volume show db1 -o json | jq -r .spec.naa_id",
		Args:    takes("VOLUME"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			res, err := call(ctx, c.volumes.GetVolume, &lintelv1.GetVolumeRequest{Name: args[0]})
			if err != nil {
				return err
			}
			return printOne(a, res.GetVolume(), describeVolume)
		}),
	}
	a.completeArgs(cmd, false, volumeNames)
	return cmd
}

func describeVolume(v *lintelv1.Volume) []detail {
	spec, status := v.GetSpec(), v.GetStatus()
	blocks := fmt.Sprintf("%d bytes, physical %d bytes", spec.GetBlockSize(), spec.GetBlockSize()<<spec.GetPhysicalExponent())
	threshold := ""
	if percent := spec.GetThinThresholdPercent(); percent != 0 {
		threshold = fmt.Sprintf("%d %%", percent)
	}
	return []detail{
		{"name", spec.GetName()},
		{"size", sizeText(spec.GetSizeBytes())},
		{"used", orUnknown(known(status.UsedBytes, sizeText))},
		{"state", stateText(word(status.GetState()), status.GetReason())},
		{"degraded since", timeText(status.GetDegradedSince())},
		{"failed I/O", failedText(status.GetFailedRequests())},
		{"pool", spec.GetPool()},
		{"kind", word(spec.GetKind())},
		{"path", spec.GetPath()},
		{"blocks", blocks},
		{"thin", yesNo(spec.GetThin())},
		{"thin threshold", threshold},
		{"read-only", yesNo(spec.GetReadOnly())},
		{"write-through", yesNo(spec.GetWriteThrough())},
		{"rotational", yesNo(spec.GetRotational())},
		{"naa_id", spec.GetNaaId()},
		{"eui64_id", spec.GetEui64Id()},
		{"nguid", status.GetNguid()},
		{"uuid", status.GetUuid()},
		{"t10_dev_id", spec.GetT10DevId()},
		{"usn", spec.GetUsn()},
		{"inquiry", strings.Join([]string{spec.GetVendor(), spec.GetProduct(), cmp.Or(spec.GetRevision(), "(lintel's version)")}, " / ")},
		{"mappings", fmt.Sprint(status.GetMappings())},
		{"sessions", orUnknown(known(status.Sessions, countText[uint32]))},
		{"comment", spec.GetComment()},
		{"created", timeText(v.GetCreated())},
		{"id", v.GetId()},
	}
}

// failedText tells how many requests the storage below a volume has failed; nothing for none.
func failedText(n uint64) string {
	if n == 0 {
		return ""
	}
	return plural(int(n), "request") + " since the volume was opened"
}

func (a *app) volumeResize() *cobra.Command {
	var ch change
	var shrink bool
	var text string
	cmd := &cobra.Command{
		Use:   "resize VOLUME SIZE",
		Short: "Change the size of a volume, in use too",
		Long: `Changes the size of a volume. Hosts that use it are told at once. A size with a
plus in front is added to the present one. Making a volume smaller destroys the
data beyond the new end, so it has to be asked for with --shrink.`,
		Example: "  lintel volume resize db1 20GiB\n  lintel volume resize db1 +5GiB\n  lintel volume resize scratch 1GiB --shrink",
		Args:    takes("VOLUME [SIZE]"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			if (text == "") != (len(args) == 2) {
				return usage("what size shall %s have? Give one, such as: lintel volume resize %s 20GiB", args[0], args[0])
			}
			if len(args) == 2 {
				text = args[1]
			}
			size, err := parseSize(strings.TrimPrefix(text, "+"))
			if err != nil {
				return err
			}
			got, err := call(ctx, c.volumes.GetVolume, &lintelv1.GetVolumeRequest{Name: args[0]})
			if err != nil {
				return err
			}
			now := got.GetVolume().GetSpec().GetSizeBytes()
			if strings.HasPrefix(text, "+") {
				if size += now; size < now {
					return usage("%s is larger than any volume can be", text)
				}
			}
			if size < now && !shrink {
				return fail(ExitConflict, "volume %s has %s: to make it smaller, and lose what it holds beyond %s, add --shrink", args[0], formatSize(now), formatSize(size))
			}
			if size < now {
				if err := a.confirm(ch, "This destroys what volume %s holds beyond %s of its %s", args[0], formatSize(size), formatSize(now)); err != nil {
					return err
				}
			}
			res, err := call(ctx, c.volumes.ResizeVolume, &lintelv1.ResizeVolumeRequest{
				Name: args[0], Etag: got.GetVolume().GetEtag(), SizeBytes: size, Shrink: shrink, DryRun: ch.dry,
			})
			if err != nil {
				return err
			}
			after := res.GetVolume().GetSpec().GetSizeBytes()
			return a.report(ch.dry, res, "resized volume %s from %s to %s%s", args[0],
				formatSize(now), formatSize(after), rounded(res.GetRequestedBytes(), after))
		}),
	}
	cmd.Flags().StringVar(&text, "size", "", "the new `SIZE`, instead of the argument")
	cmd.Flags().BoolVar(&shrink, "shrink", false, "allow a smaller size, which destroys the data beyond it")
	ch.flags(cmd)
	a.completeArgs(cmd, false, volumeNames)
	return cmd
}

func (a *app) volumeSet() *cobra.Command {
	spec := &lintelv1.VolumeSpec{}
	at := attributesOf(spec)
	var ch change
	cmd := &cobra.Command{
		Use:   "set VOLUME [KEY=VALUE...]",
		Short: "Set attributes of a volume",
		Long: `Sets attributes, as flags or as KEY=VALUE. The keys are
` + wrap(joinWords(volumeAttributes), 78) + `.

While a session sees the volume, naa_id, eui64_id, t10_dev_id, usn, vendor, thin and
physical_exponent cannot be changed: unmap it first.`,
		Example: `  lintel volume set db1 read_only=true
  lintel volume set db1 --write-through
  lintel volume set db1 naa_id=600508b400105e210000900000490000 usn=4711
  lintel volume set db1 name=db2`,
		Args: takes("VOLUME [KEY=VALUE...]"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			if err := at.assignAll(args[1:], volumeAttributes); err != nil {
				return err
			}
			if len(at.set) == 0 {
				return usage("nothing to set: the attributes are %s", joinWords(volumeAttributes))
			}
			res, err := call(ctx, c.volumes.UpdateVolume, &lintelv1.UpdateVolumeRequest{
				Name: args[0], Spec: spec, UpdateMask: at.mask(), DryRun: ch.dry,
			})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "set %s of volume %s", joinWords(at.set), args[0])
		}),
	}
	at.flag(cmd, "name", "name", "new name")
	volumeFlags(cmd, at)
	ch.dryFlag(cmd)
	keys := make([]string, len(volumeAttributes))
	for i, key := range volumeAttributes {
		keys[i] = key + "="
	}
	a.completeArgs(cmd, true, volumeNames, words(keys...))
	return cmd
}

func (a *app) volumeReopen() *cobra.Command {
	var ch change
	cmd := &cobra.Command{
		Use:   "reopen VOLUME",
		Short: "Open the storage of a volume anew, after it was repaired",
		Long: `Opens the file or disk of a volume anew while the array runs. Commands of hosts
that arrive meanwhile wait; sessions stay, and other volumes are not touched.

Use it when lintel health tells volume-writes-lost: a flush has failed, so nobody
knows which of the writes since the last good flush are stored, and the array
refuses to vouch for any more. Use it too when a backing file that was cut or
replaced is restored (volume-backing-changed), or to have the array try at once to
open one that was missing. First repair what lies below the volume.

The volume then has what its storage has. What hosts wrote since the last good
flush may be lost, also where it could still be read from memory until now: copy
what you can before. Afterwards check the file systems of the hosts (fsck) and let
their applications recover. SCSI hosts are told (DEVICE INTERNAL RESET), over
NVMe there is no way to tell them.

Where the storage still fails, or does not answer for half a minute, the volume
stays as it was. On one that is well nothing is lost: it is flushed first.`,
		Example: "  lintel volume reopen db1\n  lintel volume reopen db1 --yes",
		Args:    takes("VOLUME"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			got, err := call(ctx, c.volumes.GetVolume, &lintelv1.GetVolumeRequest{Name: args[0]})
			if err != nil {
				return err
			}
			if v := got.GetVolume(); v.GetStatus().GetState() == lintelv1.VolumeState_VOLUME_STATE_DEGRADED {
				if err := a.confirm(ch, "Volume %s is degraded: %s. Opened anew, it has only what its storage has: writes that were not flushed may be lost", args[0], v.GetStatus().GetReason()); err != nil {
					return err
				}
			}
			res, err := call(ctx, c.volumes.ReopenVolume, &lintelv1.ReopenVolumeRequest{Name: args[0], DryRun: ch.dry})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "opened volume %s anew", args[0])
		}),
	}
	ch.flags(cmd)
	a.completeArgs(cmd, false, volumeNames)
	return cmd
}

func (a *app) volumeDelete() *cobra.Command {
	var ch change
	var force bool
	cmd := &cobra.Command{
		Use:   "delete VOLUME",
		Short: "Destroy a volume and its data",
		Long: `Destroys a volume and its data. A mapped volume is refused, unless --force
removes its mappings too. A volume of kind disk is forgotten, its device is not
touched.`,
		Example: "  lintel volume delete scratch\n  lintel volume delete scratch --force --yes",
		Args:    takes("VOLUME"),
		RunE: a.with(func(ctx context.Context, c *api, args []string) error {
			got, err := call(ctx, c.volumes.GetVolume, &lintelv1.GetVolumeRequest{Name: args[0]})
			if err != nil {
				return err
			}
			v := got.GetVolume()
			if err := a.confirm(ch, "%s", deleteWarning(v, force)); err != nil {
				return err
			}
			res, err := call(ctx, c.volumes.DeleteVolume, &lintelv1.DeleteVolumeRequest{Name: args[0], Etag: v.GetEtag(), Force: force, DryRun: ch.dry})
			if err != nil {
				return err
			}
			return a.report(ch.dry, res, "deleted volume %s", args[0])
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "remove its mappings too, even while sessions use them")
	ch.flags(cmd)
	a.completeArgs(cmd, false, volumeNames)
	return cmd
}

func deleteWarning(v *lintelv1.Volume, force bool) string {
	spec, status := v.GetSpec(), v.GetStatus()
	warning := fmt.Sprintf("This destroys volume %s (%s, %s used) and its data", spec.GetName(), formatSize(spec.GetSizeBytes()), orUnknown(known(status.UsedBytes, formatSize)))
	if spec.GetKind() == lintelv1.VolumeKind_VOLUME_KIND_DISK {
		warning = fmt.Sprintf("This forgets volume %s; the data on %s stays", spec.GetName(), spec.GetPath())
	}
	if force && status.GetMappings() > 0 {
		warning += ", and removes " + plural(int(status.GetMappings()), "mapping")
	}
	if n := int(status.GetSessions()); n > 0 {
		warning += "; " + hasHave(n, "session") + " it in use"
	}
	return warning
}
