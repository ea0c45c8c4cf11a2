"""Reading a store: mapped or streamed, from disk or the Hub, in batches and for several processes."""
