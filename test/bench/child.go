package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// child is this program in a process of its own, as a server.
type child struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	address string // what it has announced
}

// startChild starts this program with the arguments of a server and waits for its address.
func startChild(args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self, args...)}
	c.cmd.Stderr = os.Stderr
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	c.stdin = stdin
	line, err := bufio.NewReader(stdout).ReadString('\n')
	c.address = strings.TrimSpace(line)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the server.
func (c *child) Close() error {
	c.stdin.Close()
	return c.cmd.Wait()
}

// announce tells the parent where a server listens. The process ends when its standard input does.
func announce(address string) {
	fmt.Println(address)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
}
