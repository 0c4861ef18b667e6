//! The kernel's network: namespaces, links, routes, nftables, eBPF. The only crate that speaks netlink and nft.
