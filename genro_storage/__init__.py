"""Files that live in many places, under names of your own."""
