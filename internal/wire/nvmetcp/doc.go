// Package nvmetcp has the PDUs of NVMe/TCP (NVM Express TCP Transport
// Specification 1.0): typed views on byte slices, their construction, and the
// check of their common headers. It allocates nothing.
package nvmetcp
