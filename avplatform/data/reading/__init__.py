"""Reading a store: mapped or streamed, from disk or the Hub, in batches for several processes."""
