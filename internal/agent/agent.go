// Package agent manages an array: it implements the API's services over the
// array's documents, the pools that keep them, and a data plane that serves them.
package agent
