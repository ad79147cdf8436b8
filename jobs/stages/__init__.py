"""The work of each command without options and output: a typed request in, a typed result out. `jobs/commands/` prints the result;
`eicorpus build` runs the same functions one after the other. Progress goes to standard error."""
