"""Every finding has a fixed wording and place: golden/NAME.yaml gives golden/NAME.txt."""
