package tlspsk

import (
	"bufio"
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// tool returns the path of a foreign TLS implementation.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed, so it is not known whether we understand each other: test/deps.sh installs it", name)
	}
	return path
}

// sessionFile writes a key of any suite in the form in which openssl takes it, a session.
func sessionFile(t *testing.T, k NamedKey) string {
	t.Helper()
	der, err := asn1.Marshal(struct {
		Version, TLS           int
		Suite, Session, Secret []byte
		Time                   int64 `asn1:"explicit,tag:1"`
		Timeout                int64 `asn1:"explicit,tag:2"`
	}{1, tls13, []byte{byte(k.Suite >> 8), byte(k.Suite)}, []byte{1}, k.Secret, time.Now().Unix(), 86400})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "psk.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "SSL SESSION PARAMETERS", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const gnutlsPriority = "--priority=NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+DHE-PSK:+ECDHE-PSK:+PSK"

// TestForeignClients checks our server with the clients of OpenSSL and GnuTLS
// (RFC 8446 §2.2, §4.6.3; the Linux host's handshake daemon is made of GnuTLS).
func TestForeignClients(t *testing.T) {
	// OpenSSL calls the keys of sessions so.
	session := NamedKey{"Client_identity", key256.Key}
	secret := hex.EncodeToString(key128.Secret)
	for _, tc := range []struct {
		name  string
		key   NamedKey
		taken []Group
		args  []string
	}{
		{"openssl", key128, groups, []string{"openssl", "s_client", "-tls1_3", "-psk_identity", key128.Identity, "-psk", secret, "-connect"}},
		{"openssl retry", key128, []Group{P384}, []string{"openssl", "s_client", "-tls1_3", "-psk_identity", key128.Identity, "-psk", secret, "-connect"}},
		{"openssl secp256r1", key128, groups, []string{"openssl", "s_client", "-tls1_3", "-groups", "P-256", "-psk_identity", key128.Identity, "-psk", secret, "-connect"}},
		{"openssl SHA-384", session, groups, []string{"openssl", "s_client", "-tls1_3", "-psk_session", "SESSION", "-connect"}},
		{"gnutls", key128, groups, []string{"gnutls-cli", "--pskusername=" + key128.Identity, "--pskkey=" + secret, gnutlsPriority, "127.0.0.1", "--port"}},
		{"gnutls retry", key128, []Group{P384}, []string{"gnutls-cli", "--pskusername=" + key128.Identity, "--pskkey=" + secret, gnutlsPriority, "127.0.0.1", "--port"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := tool(t, tc.args[0])
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(30 * time.Second)) // where the tool does not start
			args := tc.args[1:]
			for i, a := range args {
				if a == "SESSION" {
					args[i] = sessionFile(t, tc.key)
				}
			}
			at := l.Addr().String()
			if tc.args[0] == "gnutls-cli" {
				_, at, _ = net.SplitHostPort(at)
			}
			cmd := exec.CommandContext(t.Context(), path, append(args, at)...)
			stdin, _ := cmd.StdinPipe()
			var said bytes.Buffer
			cmd.Stdout, cmd.Stderr = &said, &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			nc, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
			c, err := server(nc, keyring{tc.key}.lookup, tc.taken)
			if err != nil {
				stdin.Close()
				_ = cmd.Wait()
				t.Fatalf("%v\n%s", err, said.Bytes())
			}
			c.limit = 2
			r := bufio.NewReader(c)
			for i := range 5 {
				line := fmt.Sprintf("line %d\n", i)
				got := make(chan string)
				go func() { s, _ := r.ReadString('\n'); got <- s }()
				if i == 2 && tc.args[0] == "openssl" {
					io.WriteString(stdin, "K\n") // asks for an update of the keys
					for range 10_000 {
						if c.answer.Load() {
							break
						}
						time.Sleep(time.Millisecond)
					}
				}
				io.WriteString(stdin, line)
				if s := <-got; s != line {
					t.Fatalf("%q instead of %q\n%s", s, line, said.Bytes())
				}
				fmt.Fprintf(c, "answer %d\n", i)
			}
			stdin.Close()
			if _, err := r.ReadString('\n'); !errors.Is(err, io.EOF) {
				t.Errorf("the end was no close_notify: %v", err)
			}
			c.Close()
			_ = cmd.Wait()
			if !strings.Contains(said.String(), "answer 4") || c.updates.Load() == 0 {
				t.Errorf("%d updates\n%s", c.updates.Load(), said.Bytes())
			}
		})
	}
}

// TestForeignServers checks our client with the servers of OpenSSL and GnuTLS (RFC 8446 §2.2).
func TestForeignServers(t *testing.T) {
	session := NamedKey{"Client_identity", key256.Key}
	plain := NamedKey{"plainname", key128.Key}
	secret := hex.EncodeToString(key128.Secret)
	openssl := []string{"openssl", "s_server", "-accept", "127.0.0.1:0", "-tls1_3", "-nocert", "-rev"}
	for _, tc := range []struct {
		name string
		key  NamedKey
		args []string
	}{
		{"openssl", key128, append(openssl[:len(openssl):len(openssl)], "-psk_identity", key128.Identity, "-psk", secret)},
		{"openssl retry", key128, append(openssl[:len(openssl):len(openssl)], "-groups", "P-384", "-psk_identity", key128.Identity, "-psk", secret)},
		{"openssl SHA-384", session, append(openssl[:len(openssl):len(openssl)], "-psk_session", "SESSION")},
		{"gnutls", plain, []string{"gnutls-serv", "--echo", gnutlsPriority, "--pskpasswd", "PASSWD", "--port", "PORT"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := tool(t, tc.args[0])
			var port string
			args := tc.args[1:]
			for i, a := range args {
				switch a {
				case "SESSION":
					args[i] = sessionFile(t, tc.key)
				case "PASSWD":
					args[i] = filepath.Join(t.TempDir(), "passwd")
					if err := os.WriteFile(args[i], []byte(tc.key.Identity+":"+secret+"\n"), 0o600); err != nil {
						t.Fatal(err)
					}
				case "PORT": // gnutls-serv takes no 0
					l, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						t.Fatal(err)
					}
					_, port, _ = net.SplitHostPort(l.Addr().String())
					l.Close()
					args[i] = port
				}
			}
			cmd := exec.CommandContext(t.Context(), path, args...)
			out, in, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			cmd.Stdout, cmd.Stderr = in, in
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			in.Close()
			defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
			said := bufio.NewReader(out)
			listening := regexp.MustCompile(`ACCEPT 127.0.0.1:(\d+)|listening on IPv4 .* port (\d+)\.*done`)
			for {
				line, err := said.ReadString('\n')
				if err != nil {
					t.Fatal("the server does not listen", err)
				}
				if m := listening.FindStringSubmatch(line); m != nil {
					port = m[1] + m[2]
					break
				}
			}
			go io.Copy(io.Discard, said)
			nc, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
			c, err := Client(nc, []NamedKey{tc.key})
			if err != nil {
				t.Fatal(err)
			}
			c.limit = 2
			r := bufio.NewReader(c)
			for range 5 {
				want := "abcba\n"
				io.WriteString(c, want)
				if got, err := r.ReadString('\n'); err != nil || got != want {
					t.Fatalf("%q, %v", got, err)
				}
			}
			if c.updates.Load() == 0 {
				t.Error("no update of the keys")
			}
			c.Close()
		})
	}
}
