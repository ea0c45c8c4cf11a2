"""From a parsed video to an event timeline: windows, events, files, page."""
