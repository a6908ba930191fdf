// Package nvmetcp is the NVMe/TCP transport (NVM Express TCP Transport
// Specification 1.0): it turns connections into queue pairs and PDUs into
// commands.
//
// A connection's reader goroutine takes PDUs, executes commands and writes
// what they answer; its writer goroutine writes what completes while the
// reader waits for the host. A host that breaks the protocol gets a
// termination request and loses its connection; no other is touched.
package nvmetcp
