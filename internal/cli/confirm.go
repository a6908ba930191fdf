package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// change is the --dry-run and --yes flags of a command that changes something.
type change struct {
	dry bool
	yes bool
}

func (c *change) dryFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.dry, "dry-run", false, "check everything and say what would be done, but do nothing")
}

func (c *change) flags(cmd *cobra.Command) {
	c.dryFlag(cmd)
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask")
}

// confirm says what is about to be destroyed and asks for consent, unless --yes was
// given. Where nobody can be asked it refuses. A dry run says what would be asked.
func (a *app) confirm(c change, warning string, args ...any) error {
	switch {
	case c.dry:
		fmt.Fprintf(a.Err, "Without --dry-run and --yes it would ask: %s.\n", printable(fmt.Sprintf(warning, args...)))
		return nil
	case c.yes:
		return nil
	}
	if in, isFile := a.In.(*os.File); isFile {
		if _, tty := terminal(in); !tty {
			return usage("%s: confirm with --yes", fmt.Sprintf(warning, args...))
		}
	}
	fmt.Fprintf(a.Err, "%s.\nGo on? [y/N] ", printable(fmt.Sprintf(warning, args...)))
	answer, err := a.ask(func() (string, error) {
		return bufio.NewReader(a.In).ReadString('\n')
	})
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return fail(ExitError, "nothing was changed")
}

// ask reads what somebody types, who may interrupt it. The reader then is left waiting: the
// process ends.
func (a *app) ask(read func() (string, error)) (string, error) {
	var text string
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		text, err = read()
	}()
	select {
	case <-done:
		return text, err
	case <-a.interrupted:
		fmt.Fprintln(a.Err)
		return "", context.Canceled
	}
}

// secret is a password given in a file, on standard input, at a prompt or, by
// who accepts that other users of the machine see it, on the command line.
type secret struct {
	what string
	flag string // without the dashes
	file string
	text string
}

func (s *secret) flags(cmd *cobra.Command, name, what, otherwise string) {
	s.what, s.flag = what, name
	cmd.Flags().StringVar(&s.file, name+"-file", "", "read "+what+" from the first line of `FILE` (- for standard input)"+otherwise)
	cmd.Flags().StringVar(&s.text, name, "", what+" itself, visible to every user of this machine while the command runs")
}

// given reports whether a flag names the secret.
func (s *secret) given() bool { return s.file != "" || s.text != "" }

// read returns the secret, asking for it on the terminal where no flag gives it.
func (s *secret) read(a *app) (string, error) {
	switch {
	case s.text != "" && s.file != "":
		return "", usage("%s is given twice, as a flag and in a file", s.what)
	case s.text != "":
		return s.text, nil
	case s.file == "-":
		return firstLine(a.In, "standard input")
	case s.file != "":
		f, err := os.Open(s.file)
		if err != nil {
			return "", fmt.Errorf("read %s: %w", s.what, err)
		}
		defer f.Close()
		return firstLine(f, s.file)
	}
	fd, tty := terminal(a.In)
	if !tty {
		return "", usage("%s is missing: put it in a file and name that with --%s-file", s.what, s.flag)
	}
	fmt.Fprintf(a.Err, "%s: ", s.what)
	state, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", s.what, err)
	}
	line, err := a.ask(func() (string, error) {
		line, err := term.ReadPassword(fd)
		fmt.Fprintln(a.Err)
		return string(line), err
	})
	if err != nil {
		return "", errors.Join(fmt.Errorf("read %s: %w", s.what, err), term.Restore(fd, state)) // an interrupted one has no echo
	}
	return line, nil
}

func firstLine(r io.Reader, name string) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	line = strings.TrimRight(line, "\r\n")
	if line == "" {
		return "", usage("%s has no secret in its first line", name)
	}
	return line, nil
}
