package array

import (
	"errors"

	"lintel.io/lintel/internal/nvme/dhchap"
)

var errKeyForm = errors.New("white space around it")

// checkDHCHAPKey returns an error of KindInvalid, which shows nothing of the key, unless
// text is the text form of a DH-HMAC-CHAP key (NVMe Base 2.0 §8.13.5.8).
func checkDHCHAPKey(text string) error {
	k, err := dhchap.ParseSecret(text)
	if err == nil && k.Text() != text {
		err = errKeyForm
	}
	if err != nil {
		return Errorf(KindInvalid, "the DH-HMAC-CHAP key is wrong, %w: lintel host dhchap-key and nvme gen-dhchap-key make good ones", err)
	}
	return nil
}

// validateDHCHAP checks the keys of a host.
func (h *Host) validateDHCHAP(fail func(string, ...any) error) error {
	if h.DHCHAPKey == "" {
		if h.DHCHAPCtrlKey != "" {
			return fail("dhchap_ctrl_key needs dhchap_key")
		}
		return nil
	}
	if err := checkDHCHAPKey(h.DHCHAPKey); err != nil {
		return fail("dhchap_key: %w", err)
	}
	if h.DHCHAPCtrlKey == "" {
		return nil
	}
	if err := checkDHCHAPKey(h.DHCHAPCtrlKey); err != nil {
		return fail("dhchap_ctrl_key: %w", err)
	}
	if h.DHCHAPKey == h.DHCHAPCtrlKey {
		return fail("dhchap_ctrl_key has to differ from dhchap_key")
	}
	return nil
}
