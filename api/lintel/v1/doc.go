// Package lintelv1 is version 1 of the array's API: the messages of the .proto
// files beside it. Package lintelv1connect has the services.
package lintelv1
