package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"lintel.io/lintel/internal/nvme/dhchap"
)

// keyHashes are the words for the hashes of DH-HMAC-CHAP keys.
var keyHashes = []struct {
	word string
	hash dhchap.Hash
}{{"none", 0}, {"sha256", dhchap.SHA256}, {"sha384", dhchap.SHA384}, {"sha512", dhchap.SHA512}}

// hostKey is host dhchap-key.
func (a *app) hostKey() *cobra.Command {
	hash := "sha256"
	words := make([]string, len(keyHashes))
	for i, h := range keyHashes {
		words[i] = h.word
	}
	cmd := &cobra.Command{
		Use:   "dhchap-key",
		Short: "Make a fresh DH-HMAC-CHAP key",
		Long: `Prints a fresh key for DH-HMAC-CHAP, the authentication of NVMe hosts, in the form
DHHC-1:hh:base64: that nvme connect takes too. The array and the host need the same
one. It is bound to the host's NQN when it is used, by the hash, which gives its
length too: 32 bytes with none and sha256, 48 with sha384, 64 with sha512.`,
		Example: `  (umask 077; lintel host dhchap-key > key)
  lintel host create db --nqn nqn.2014-08.com.example:db --dhchap-key-file key`,
		Args: takes(""),
		RunE: func(*cobra.Command, []string) error {
			for _, h := range keyHashes {
				if h.word != hash {
					continue
				}
				key, err := dhchap.GenerateSecret(h.hash)
				if err != nil {
					return err
				}
				if a.format != formatTable {
					return a.printValue(object{{"hash", h.word}, {"dhchap_key", key.Text()}})
				}
				fmt.Fprintln(a.Out, key.Text())
				return nil
			}
			return usage("there is no hash %q: the hashes are %s", hash, joinWords(words))
		},
	}
	cmd.Flags().StringVar(&hash, "hash", hash, "`HASH` that binds the key to the host's NQN: none, sha256, sha384 or sha512")
	mustRegister(cmd, "hash", words)
	return cmd
}
