"""Has what nodes see changed since the champion was judged? Tests that may be looked at as often as one likes."""
