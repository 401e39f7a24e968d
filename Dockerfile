# The plugin's root file system as an image, for who assembles plugins from images. No base image: everything in it is
# what plugin/rootfs.sh took from the machine that built dso. `make plugin` does not need it.
#
#   make rootfs && docker build -t dso-rootfs .
FROM scratch
ARG ROOTFS=target/plugin/release/rootfs
COPY ${ROOTFS}/ /
ENTRYPOINT ["/dso"]
