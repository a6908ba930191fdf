// Package transport has what connections of all transports are made of: the
// vectored output, the receive buffer, the budget for data that is on its way
// in, the loop that accepts connections, the bound on half-open ones, and the settings
// of sockets.
package transport
