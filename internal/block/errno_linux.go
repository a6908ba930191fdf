package block

import "golang.org/x/sys/unix"

// kindOf sorts what the kernel answers. Block devices tell more than EIO:
// ENODATA is an unreadable sector, EILSEQ failed protection information, EUCLEAN
// and EBADMSG a corrupt file system.
func kindOf(errno unix.Errno) Kind {
	switch errno {
	case unix.EIO, unix.ENODATA, unix.EILSEQ, unix.EUCLEAN, unix.EBADMSG:
		return KindMedium
	case unix.ENOSPC, unix.EDQUOT, unix.EFBIG:
		return KindNoSpace
	case unix.EROFS, unix.EBADF, unix.EPERM, unix.EACCES:
		// The descriptor is open for the whole life of a request, so EBADF
		// means that it is not open for writing.
		return KindReadOnly
	case unix.ENODEV, unix.ENXIO, unix.ESTALE, unix.ENOTCONN, unix.ESHUTDOWN:
		return KindGone
	}
	return KindIO
}
