"""Pseudo-labels: what the champion says of pool samples that nobody has labelled, as a small part of a lesson.

They are made when a lesson is drawn and kept nowhere. A dataset version then stays what people and devices said, a
champion that is taken back leaves none of its opinions behind, and they can be made again exactly: from the versions
of the tables, the champion's blobs, the rules and the seed, all of which name the candidate.
"""
