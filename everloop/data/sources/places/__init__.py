"""Where files lie: a folder, a bucket, the web. Each lists what is there with a stamp, and brings a file here."""
