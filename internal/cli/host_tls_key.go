package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"lintel.io/lintel/internal/nvme/tlskey"
)

// tlsHashes are the words for the hashes of TLS keys, in the order of their numbers.
var tlsHashes = []string{"none", "sha256", "sha384"}

// hostTLSKey is host tls-key.
func (a *app) hostTLSKey() *cobra.Command {
	hash := "sha256"
	cmd := &cobra.Command{
		Use:   "tls-key",
		Short: "Make a fresh TLS key",
		Long: `Prints a fresh key for TLS with NVMe hosts, in the form NVMeTLSkey-1:hh:base64: that
nvme-cli takes too. The array and the host need the same one. It is bound to the
host's NQN before it is used, by the hash. TLS encrypts with AES-128 where the key
has 32 bytes, with none and sha256, and with AES-256 where it has 48, with sha384.`,
		Example: `  (umask 077; lintel host tls-key > key)
  lintel host create db --nqn nqn.2014-08.com.example:db --tls-key-file key`,
		Args: takes(""),
		RunE: func(*cobra.Command, []string) error {
			i := slices.Index(tlsHashes, hash)
			if i < 0 {
				return usage("there is no hash %q: the hashes are %s", hash, joinWords(tlsHashes))
			}
			key, err := tlskey.Generate(tlskey.Hash(i))
			if err != nil {
				return err
			}
			if a.format != formatTable {
				return a.printValue(object{{"hash", hash}, {"tls_key", key.Text()}})
			}
			fmt.Fprintln(a.Out, key.Text())
			return nil
		},
	}
	cmd.Flags().StringVar(&hash, "hash", hash, "`HASH` that binds the key to the host's NQN: none, sha256 or sha384")
	mustRegister(cmd, "hash", tlsHashes)
	return cmd
}
