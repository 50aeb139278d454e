"""One store on all devices of one person: found, paired, kept up to date over encrypted links, any of them enough."""
