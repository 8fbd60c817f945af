"""Stand-ins for PBS, Torque, Cobalt, HTCondor, LSF and Flux, which cannot be had here, and for aprun, jsrun and PALS.

Each reads a batch script's directives by the documented grammar of the real tool, refuses what that would refuse and
in its manner (exit code, words on standard error), and then runs the script for real on this machine. A
launcher does the same with its options and then starts the program with the mpiexec of this interpreter, so that
there is a true MPI world.

They are stricter than the real ones in one way: an option that none of our scripts has a reason to use is refused
as unknown, because a misspelt one would otherwise pass. What they cannot show: several nodes, and whatever
a site's own hooks add. The grammars come from the manuals and, for Cobalt, Flux and Torque, from the sources of their
clients as well.
"""
