package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// The management console of a User Mode Linux kernel takes datagrams on a unix
// socket: a magic number, version 2, a length and a command of up to 512 bytes. Its
// answers are an error number, whether more follows, a length and text.
const (
	mconsoleMagic   = 0xcafebabe
	mconsoleVersion = 2
	mconsoleMax     = 512
)

// mconsole has a guest's kernel carry out a command, such as "config ubd3=FILE".
func mconsole(socket, own, command string) (string, error) {
	if len(command) >= mconsoleMax {
		return "", errors.New("console command is too long")
	}
	os.Remove(own)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: own, Net: "unixgram"})
	if err != nil {
		return "", fmt.Errorf("management console: %w", err)
	}
	defer os.Remove(own)
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	request := make([]byte, 12+mconsoleMax)
	binary.NativeEndian.PutUint32(request, mconsoleMagic)
	binary.NativeEndian.PutUint32(request[4:], mconsoleVersion)
	binary.NativeEndian.PutUint32(request[8:], uint32(len(command)))
	copy(request[12:], command)
	if _, err := conn.WriteTo(request, &net.UnixAddr{Name: socket, Net: "unixgram"}); err != nil {
		return "", fmt.Errorf("management console: %w", err)
	}
	var text bytes.Buffer
	reply := make([]byte, 65536)
	for {
		n, _, err := conn.ReadFrom(reply)
		if err != nil {
			return "", fmt.Errorf("management console: %w", err)
		}
		failed, more, part, err := parseReply(reply[:n])
		if err != nil {
			return "", err
		}
		text.Write(part)
		if !more {
			if failed {
				return "", fmt.Errorf("%s: %s", command, bytes.TrimSpace(text.Bytes()))
			}
			return text.String(), nil
		}
	}
}

// parseReply takes one datagram of an answer apart.
func parseReply(b []byte) (failed, more bool, text []byte, err error) {
	if len(b) < 12 {
		return false, false, nil, errors.New("management console: short answer")
	}
	n := min(uint64(binary.NativeEndian.Uint32(b[8:])), uint64(len(b)-12))
	text, _, _ = bytes.Cut(b[12:12+n], []byte{0})
	return binary.NativeEndian.Uint32(b) != 0, binary.NativeEndian.Uint32(b[4:]) != 0, text, nil
}
