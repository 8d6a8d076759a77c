// The letters in variable names and comments of this folder.
//
//   B rows of a micro-batch     S positions a row        T = B S tokens     D hidden size
//   E routed experts            K experts a token        I inner size of one expert
//   R rows that this rank's experts receive               V vocabulary
//   ep ranks that share the experts of a layer, each holding E / ep neighbouring ones
//
// Variables carry the letters where orders coexist: x_TD is in token order, x_RD in expert order.
