package array

import "lintel.io/lintel/internal/nvme/tlskey"

// checkTLSKey returns an error of KindInvalid, which shows nothing of the key, unless
// text is the text form of a TLS key of NVMe/TCP (NVMe/TCP 1.0 §3.6.1.5).
func checkTLSKey(text string) error {
	k, err := tlskey.Parse(text)
	if err == nil && k.Text() != text {
		err = errKeyForm
	}
	if err != nil {
		return Errorf(KindInvalid, "the TLS key is wrong, %w: lintel host tls-key and nvme gen-tls-key make good ones", err)
	}
	return nil
}

// validateTLS checks the TLS key of a host.
func (h *Host) validateTLS(fail func(string, ...any) error) error {
	if h.TLSKey == "" {
		return nil
	}
	if err := checkTLSKey(h.TLSKey); err != nil {
		return fail("tls_key: %w", err)
	}
	return nil
}
